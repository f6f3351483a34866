package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
)

// bucketCmd are the commands about buckets. A bucket that was never created has
// the defaults.
type bucketCmd struct {
	Create bucketCreateCmd `cmd:"" help:"Create a bucket with properties of its own."`
	Set    bucketSetCmd    `cmd:"" help:"Change properties of a bucket: all but n and conflicts."`
	List   bucketListCmd   `cmd:"" help:"List the buckets that were created."`
}

// properties are the flags that both share; what is not given stays as it is.
type properties struct {
	R          *int           `help:"Replicas that a read waits for."`
	W          *int           `help:"Replicas that a write waits for."`
	PR         *int           `name:"pr" help:"Primaries among those of a read."`
	PW         *int           `name:"pw" help:"Primaries among those of a write."`
	Durability *string        `help:"When a write is done: all (on W disks), one, none."`
	TTL        *time.Duration `name:"ttl" help:"How long a value lives; 0 is for ever."`
}

// apply changes what was given.
func (f *properties) apply(p *bucket.Properties) error {
	for flag, field := range map[*int]*int{f.R: &p.Quorum.R, f.W: &p.Quorum.W, f.PR: &p.Quorum.PR, f.PW: &p.Quorum.PW} {
		if flag != nil {
			*field = *flag
		}
	}
	if f.TTL != nil {
		p.TTL = *f.TTL
	}
	if f.Durability == nil {
		return nil
	}
	d, err := dynamo.ParseDurability(*f.Durability)
	if err != nil {
		return usageError(err.Error())
	}
	p.Durability = d
	return nil
}

type bucketCreateCmd struct {
	operator
	Name string `arg:"" help:"The bucket."`
	properties
	N         *int    `help:"Replicas of each key; fixed from now on."`
	Conflicts *string `help:"What becomes of concurrent writes: siblings (keep them) or lww (the last one wins); fixed from now on."`
}

// Run creates a bucket. Data that were written before it was created lie where n = 3
// puts them, so that a bucket of another n must be new.
func (c *bucketCreateCmd) Run(s *streams) error {
	b := member.Bucket{Name: c.Name, Properties: bucket.Default()}
	if c.N != nil {
		n := *c.N
		b.Properties.Quorum.N = n
		b.Properties.Quorum.R, b.Properties.Quorum.W = min(b.Properties.Quorum.R, n), min(b.Properties.Quorum.W, n)
	}
	if c.Conflicts != nil {
		conflicts, err := dynamo.ParseConflicts(*c.Conflicts)
		if err != nil {
			return usageError(err.Error())
		}
		b.Properties.Conflicts = conflicts
	}
	if err := c.apply(&b.Properties); err != nil {
		return err
	}
	if err := b.Validate(); err != nil {
		return usageError(err.Error())
	}
	return c.one(func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		if b.Properties.Quorum.N != bucket.Default().Quorum.N {
			if err := isEmpty(ctx, cl, c.Name); err != nil {
				return err
			}
		}
		status, err := cl.Cluster().CreateBucket(ctx, b)
		if err != nil {
			return err
		}
		return c.show(s.out, status)
	})
}

// isEmpty refuses a bucket that has keys already.
func isEmpty(ctx context.Context, cl *client.Client, name string) error {
	found := errors.New("found")
	err := cl.Bucket(name).Keys(ctx, func(string) error { return found })
	if errors.Is(err, found) {
		return fmt.Errorf("bucket %q has keys, which were written with the default n = %d: create it under another name, and export and import them", name, bucket.Default().Quorum.N)
	}
	return err
}

type bucketSetCmd struct {
	operator
	Name string `arg:"" help:"The bucket."`
	properties
}

// Run changes a bucket.
func (c *bucketSetCmd) Run(s *streams) error {
	return c.one(func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		status, err := setBucket(ctx, cl.Cluster(), c.Name, c.apply)
		if err != nil {
			return err
		}
		return c.show(s.out, status)
	})
}

// setBucket changes a bucket's properties as they are now. When the cluster changes in
// between, it looks again.
func setBucket(ctx context.Context, cl *client.Cluster, name string, change func(*bucket.Properties) error) (status client.ClusterStatus, err error) {
	for {
		if status, err = cl.Status(ctx); err != nil {
			return status, err
		}
		p, created := status.Document.Bucket(name)
		if !created {
			return status, fmt.Errorf("%w: %q; see node bucket create", member.ErrNoBucket, name)
		}
		if err := change(&p); err != nil {
			return status, err
		}
		b := member.Bucket{Name: name, Properties: p}
		if err := b.Validate(); err != nil {
			return status, usageError(err.Error())
		}
		status, err = cl.SetBucket(ctx, b, status.Document.Version)
		if !errors.Is(err, client.ErrChanged) || ctx.Err() != nil {
			return status, err
		}
	}
}

type bucketListCmd struct{ operator }

// Run lists the buckets.
func (c *bucketListCmd) Run(s *streams) error {
	return c.one(func(cl *client.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		status, err := cl.Cluster().Status(ctx)
		if err != nil {
			return err
		}
		return c.show(s.out, status)
	})
}

// bucketJSON is one bucket for scripts.
type bucketJSON struct {
	Name       string `json:"name"`
	N          int    `json:"n"`
	R          int    `json:"r"`
	W          int    `json:"w"`
	PR         int    `json:"pr"`
	PW         int    `json:"pw"`
	Durability string `json:"durability"`
	Conflicts  string `json:"conflicts"`
	TTLMillis  int64  `json:"ttl_ms"`
}

// show prints all buckets that were created.
func (o *operator) show(w io.Writer, status client.ClusterStatus) error {
	if o.JSON {
		return writeJSON(w, bucketsJSON(status))
	}
	return showBuckets(w, status)
}

func bucketsJSON(status client.ClusterStatus) []bucketJSON {
	all := []bucketJSON{}
	for _, b := range status.Document.Buckets {
		p := b.Properties
		all = append(all, bucketJSON{
			b.Name, p.Quorum.N, p.Quorum.R, p.Quorum.W, p.Quorum.PR, p.Quorum.PW, p.Durability.String(), p.Conflicts.String(), p.TTL.Milliseconds(),
		})
	}
	return all
}

func showBuckets(w io.Writer, status client.ClusterStatus) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "BUCKET\tN\tR\tW\tPR\tPW\tDURABILITY\tCONFLICTS\tTTL")
	for _, b := range bucketsJSON(status) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%v\n", safe(b.Name), b.N, b.R, b.W, b.PR, b.PW, b.Durability, b.Conflicts, time.Duration(b.TTLMillis)*time.Millisecond)
	}
	return t.Flush()
}
