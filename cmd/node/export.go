package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/dynactor/dynactor/client"
)

// exportCmd is node export.
type exportCmd struct {
	connection
	Bucket   string `help:"Bucket to read." required:""`
	WithKeys bool   `help:"Print objects as get --json does, with keys and contexts, instead of bare values."`
	InFlight int    `help:"Keys read at once." default:"64"`
}

// exporter is a run.
type exporter struct {
	*exportCmd
	bucket   *client.Bucket
	progress *progress
	siblings int
	mu       sync.Mutex
	out      *bufio.Writer
	firstErr error
}

// Run prints every value of the bucket. Keys are found on enough replicas, and
// each is then read with the bucket's quorum.
func (c *exportCmd) Run(ctx context.Context, s *streams) error {
	if c.InFlight < 1 {
		return usageError("--in-flight must be at least 1")
	}
	return c.one(func(cl *client.Client) error {
		if err := c.ready(ctx, cl); err != nil {
			return err
		}
		e := &exporter{exportCmd: c, bucket: cl.Bucket(c.Bucket), out: bufio.NewWriterSize(s.out, 1<<16)}
		e.progress = newProgress(s.err, "export", 0)
		err := e.run(ctx)
		e.progress.end()
		err = errors.Join(err, e.out.Flush())
		fmt.Fprintf(s.err, "exported %d, failed %d\n", e.progress.done.Load(), e.progress.failed.Load())
		if e.siblings > 0 {
			fmt.Fprintf(s.err, "%d keys have siblings; each of their values is a line (--with-keys shows which)\n", e.siblings)
		}
		if n := e.progress.failed.Load(); n > 0 {
			return errors.Join(err, fmt.Errorf("%d keys could not be read; first: %w", n, e.firstErr))
		}
		return err
	})
}

func (e *exporter) run(ctx context.Context) error {
	keys := make(chan string, e.InFlight)
	var wg sync.WaitGroup
	for range e.InFlight {
		wg.Go(func() {
			for k := range keys {
				e.handle(ctx, k)
			}
		})
	}
	err := e.bucket.Keys(ctx, func(key string) error {
		select {
		case keys <- key:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	close(keys)
	wg.Wait()
	return err
}

func (e *exporter) handle(ctx context.Context, key string) {
	o, err := e.bucket.Get(ctx, key)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil && o.Exists() {
		err = e.print(key, o)
	}
	switch {
	case err != nil:
		e.progress.failed.Add(1)
		if e.firstErr == nil {
			e.firstErr = fmt.Errorf("%q: %w", key, err)
		}
	case o.Exists():
		e.progress.done.Add(1)
		if len(o.Values) > 1 {
			e.siblings++
		}
	}
}

// print writes an object's values, one a line. A value that is no single line
// of JSON is written as an object that says what it is.
func (e *exporter) print(key string, o client.Object) error {
	if e.WithKeys {
		return printJSON(&streams{out: e.out}, e.Bucket, key, o)
	}
	for _, v := range o.Values {
		line := v.Value
		if !json.Valid(line) || bytes.ContainsAny(line, "\n\r") {
			text, encoding := encode(line)
			var err error
			if line, err = json.Marshal(map[string]string{"key": key, "value": text, "encoding": encoding}); err != nil {
				return err
			}
		}
		if _, err := e.out.Write(append(bytes.Clone(line), '\n')); err != nil {
			return err
		}
	}
	return nil
}
