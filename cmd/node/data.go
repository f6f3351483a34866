package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/dynactor/dynactor/client"
)

// connection are the flags of every command that talks to a cluster.
type connection struct {
	Node    []string      `help:"Node to connect to, HOST:PORT; repeatable." default:"127.0.0.1:7800"`
	Cluster string        `help:"The cluster's name." default:"dynactor"`
	Timeout time.Duration `help:"Time for one request." default:"5s"`
	TLSCA   string        `name:"tls-ca" help:"Use TLS and trust this authority (PEM)." type:"path"`
	TLSCert string        `name:"tls-cert" help:"Certificate to show (PEM), for operators who change nodes with the console." type:"path"`
	TLSKey  string        `name:"tls-key" help:"Key of the certificate (PEM)." type:"path"`
}

// open connects a client; the caller closes it.
func (c *connection) open() (*client.Client, error) {
	config := client.Default()
	config.Nodes, config.Cluster, config.Timeout = c.Node, c.Cluster, c.Timeout
	if c.TLSCA != "" {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", c.TLSCA)
		}
		config.TLS = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}
	}
	if c.TLSCert != "" || c.TLSKey != "" {
		if config.TLS == nil {
			return nil, usageError("--tls-cert takes --tls-ca")
		}
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, err
		}
		config.TLS.Certificates = []tls.Certificate{pair}
	}
	return client.New(config)
}

// limit bounds each request of a command by --timeout.
func (c *connection) limit() client.Option { return client.Timeout(c.Timeout) }

// ready waits for the ring, so that a cluster that cannot be reached is one
// error and not one for each request.
func (c *connection) ready(ctx context.Context, cl *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return cl.Ready(ctx)
}

// one runs a function with a client of its own.
func (c *connection) one(f func(*client.Client) error) error {
	cl, err := c.open()
	if err != nil {
		return err
	}
	return errors.Join(f(cl), cl.Close())
}

// keyFlags are the flags of requests for one key.
type keyFlags struct {
	connection
	Bucket string `help:"Bucket that the key is in." default:"default"`
	JSON   bool   `name:"json" help:"Print JSON."`
	Key    string `arg:"" help:"The key."`
}

// contextFlag is a causal context as the other commands print it.
type contextFlag struct {
	Context string `help:"Context of an earlier get or put: the write replaces what that has seen. Without it a put makes a sibling, and a delete reads first."`
}

func (c contextFlag) options() ([]client.Option, error) {
	if c.Context == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(c.Context)
	if err != nil {
		return nil, fmt.Errorf("--context: not a context that get or put printed: %w", err)
	}
	return []client.Option{client.After(raw)}, nil
}

func printable(c client.Context) string { return base64.RawURLEncoding.EncodeToString(c) }

type getCmd struct {
	keyFlags
	R    int    `name:"r" help:"Replicas that must answer (default: the bucket's)."`
	PR   int    `name:"pr" help:"Primaries that must be among them."`
	File string `help:"Write the one value to this file." type:"path"`
}

// Run reads a key.
func (c *getCmd) Run(ctx context.Context, s *streams) error {
	return c.one(func(cl *client.Client) error {
		o, err := cl.Bucket(c.Bucket).Get(ctx, c.Key, client.R(c.R), client.PR(c.PR), c.limit())
		if err != nil {
			return err
		}
		return c.print(s, o)
	})
}

func (c *getCmd) print(s *streams, o client.Object) error {
	switch {
	case c.JSON:
		return printJSON(s, c.Bucket, c.Key, o)
	case !o.Exists():
		if o.Context != nil {
			fmt.Fprintf(s.err, "context: %s\n", printable(o.Context))
		}
		return fmt.Errorf("%q in bucket %q: %w", c.Key, c.Bucket, errNotFound)
	case c.File != "":
		v, err := o.One()
		if err != nil {
			return fmt.Errorf("%q has %d values, get without --file shows them: %w", c.Key, len(o.Values), err)
		}
		return os.WriteFile(c.File, v, 0o600)
	case len(o.Values) > 1:
		return printSiblings(s, o)
	}
	return printOne(s, o)
}

// printOne prints the bare value to the output, so that it can be piped, and
// on a terminal what a person needs beside it.
func printOne(s *streams, o client.Object) error {
	value := o.Values[0].Value
	if isTerminal(s.out) {
		fmt.Fprintln(s.out, display(value))
	} else if _, err := s.out.Write(value); err != nil {
		return err
	}
	if isTerminal(s.err) {
		fmt.Fprintf(s.err, "context: %s\n", printable(o.Context))
	}
	return nil
}

// printSiblings prints every value and the context that covers them all.
func printSiblings(s *streams, o client.Object) error {
	fmt.Fprintf(s.out, "%d siblings (concurrent values):\n", len(o.Values))
	for i, v := range o.Values {
		fmt.Fprintf(s.out, "%3d. %s  written %s, dot %s\n", i+1, display(v.Value), v.Time.Format(time.RFC3339Nano), v.Dot)
	}
	fmt.Fprintf(s.out, "context: %s\n", printable(o.Context))
	_, err := fmt.Fprintln(s.out, "put the merged value with --context to replace them all")
	return err
}

// display shows a value on a terminal without letting it control the terminal,
// and so that an empty one is seen.
func display(value []byte) string {
	if len(value) == 0 || !utf8.Valid(value) {
		return fmt.Sprintf("%q", value)
	}
	for _, r := range string(value) {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return fmt.Sprintf("%q", value)
		}
	}
	return string(value)
}

// jsonObject is what get --json prints.
type jsonObject struct {
	Bucket   string      `json:"bucket"`
	Key      string      `json:"key"`
	Values   []jsonValue `json:"values"`
	Context  string      `json:"context"`
	Siblings int         `json:"siblings"`
}

type jsonValue struct {
	Value    string `json:"value"`
	Encoding string `json:"encoding"`
	Time     string `json:"time"`
	Dot      string `json:"dot"`
}

// encode gives a value as text where it is text, else as base64.
func encode(value []byte) (text, encoding string) {
	if utf8.Valid(value) {
		return string(value), "utf8"
	}
	return base64.StdEncoding.EncodeToString(value), "base64"
}

func printJSON(s *streams, bucket, key string, o client.Object) error {
	out := jsonObject{Bucket: bucket, Key: key, Values: []jsonValue{}, Context: printable(o.Context), Siblings: len(o.Values)}
	for _, v := range o.Values {
		text, encoding := encode(v.Value)
		out.Values = append(out.Values, jsonValue{Value: text, Encoding: encoding, Time: v.Time.Format(time.RFC3339Nano), Dot: v.Dot})
	}
	if err := json.NewEncoder(s.out).Encode(out); err != nil {
		return err
	}
	if !o.Exists() {
		return fmt.Errorf("%q in bucket %q: %w", key, bucket, errNotFound)
	}
	return nil
}

type putCmd struct {
	keyFlags
	contextFlag
	Value *string `arg:"" optional:"" help:"The value; - or nothing reads standard input."`
	W     int     `name:"w" help:"Replicas that must confirm (default: the bucket's)."`
	PW    int     `name:"pw" help:"Primaries that must be among them."`
	File  string  `help:"Take the value from this file." type:"existingfile"`
}

// Run writes a key.
func (c *putCmd) Run(ctx context.Context, s *streams) error {
	opts, err := c.options()
	if err != nil {
		return err
	}
	value, err := c.value(s)
	if err != nil {
		return err
	}
	return c.one(func(cl *client.Client) error {
		w, err := cl.Bucket(c.Bucket).Put(ctx, c.Key, value, append(opts, client.W(c.W), client.PW(c.PW), c.limit())...)
		if err != nil {
			return err
		}
		return printWritten(s, c.JSON, w)
	})
}

// value is the argument, the file, or standard input.
func (c *putCmd) value(s *streams) ([]byte, error) {
	switch {
	case c.File != "" && c.Value != nil:
		return nil, usageError("give the value or --file, not both")
	case c.File != "":
		return os.ReadFile(c.File)
	case c.Value == nil || *c.Value == "-":
		return io.ReadAll(io.LimitReader(s.in, maxLine)) // what is longer is too large anyway
	}
	return []byte(*c.Value), nil
}

func printWritten(s *streams, asJSON bool, w client.Written) error {
	if asJSON {
		return json.NewEncoder(s.out).Encode(struct {
			Context  string `json:"context"`
			Replicas int    `json:"replicas"`
		}{printable(w.Context), w.Replicas})
	}
	replicas := fmt.Sprintf("%d replicas", w.Replicas)
	if w.Replicas == 1 {
		replicas = "1 replica"
	}
	_, err := fmt.Fprintf(s.out, "ok: confirmed by %s\ncontext: %s\n", replicas, printable(w.Context))
	return err
}

type deleteCmd struct {
	keyFlags
	contextFlag
	W  int `name:"w" help:"Replicas that must confirm (default: the bucket's)."`
	PW int `name:"pw" help:"Primaries that must be among them."`
}

// Run deletes a key: what the context has seen, or without one what is there
// now.
func (c *deleteCmd) Run(ctx context.Context, s *streams) error {
	opts, err := c.options()
	if err != nil {
		return err
	}
	return c.one(func(cl *client.Client) error {
		b := cl.Bucket(c.Bucket)
		if len(opts) == 0 {
			o, err := b.Get(ctx, c.Key, c.limit())
			if err != nil {
				return err
			}
			if !o.Exists() {
				return fmt.Errorf("%q in bucket %q: %w", c.Key, c.Bucket, errNotFound)
			}
			opts = append(opts, client.After(o.Context))
		}
		w, err := b.Delete(ctx, c.Key, append(opts, client.W(c.W), client.PW(c.PW), c.limit())...)
		if err != nil {
			return err
		}
		return printWritten(s, c.JSON, w)
	})
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
