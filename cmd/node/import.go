package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/dynactor/dynactor/client"
)

// maxLine is the longest record in bytes: the largest value a cluster can be
// configured for, and some.
const maxLine = 17 << 20

// importCmd is node import.
type importCmd struct {
	connection
	Bucket   string `help:"Bucket to write to." required:""`
	KeyField string `name:"key" help:"Field of each record that is its key: a string or a number." required:""`
	Blind    bool   `help:"Do not read a key before writing it: faster, but a key that exists gets a sibling."`
	InFlight int    `help:"Records under way at once." default:"256"`
	Failed   string `help:"File for the records that could not be written (default: FILE.failed)." type:"path"`
	Restart  bool   `help:"Begin at the first record even if an earlier run was interrupted."`
	File     string `arg:"" optional:"" help:"File of JSON objects, one a line; - or nothing reads standard input." type:"path"`
}

// record is one line of the input.
type record struct {
	line int64
	end  int64 // offset behind it
	raw  []byte
}

// importer is a run.
type importer struct {
	*importCmd
	bucket   *client.Bucket
	progress *progress
	mark     *mark
	mu       sync.Mutex
	failed   *os.File
	firstErr error
}

// Run writes all records and reports how many failed.
func (c *importCmd) Run(ctx context.Context, s *streams) error {
	if c.InFlight < 1 {
		return errors.New("--in-flight must be at least 1")
	}
	in, total, err := c.input(s)
	if err != nil {
		return err
	}
	defer in.Close()
	return c.one(func(cl *client.Client) error {
		if err := c.ready(ctx, cl); err != nil {
			return err
		}
		i := &importer{importCmd: c, bucket: cl.Bucket(c.Bucket), mark: newMark(c.markPath())}
		offset, err := i.resume(s, in)
		if err != nil {
			return err
		}
		i.progress = newProgress(s.err, "import", total)
		err = i.run(ctx, in, offset)
		i.progress.end()
		return errors.Join(i.report(s, err), i.close())
	})
}

// input opens the file, or takes standard input.
func (c *importCmd) input(s *streams) (io.ReadCloser, int64, error) {
	if c.File == "" || c.File == "-" {
		return io.NopCloser(s.in), 0, nil
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// markPath is where the place of an interrupted run is kept.
func (c *importCmd) markPath() string {
	if c.File == "" || c.File == "-" {
		return ""
	}
	return c.File + ".progress"
}

// resume goes on where an interrupted run of the same file stopped.
func (i *importer) resume(s *streams, in io.Reader) (int64, error) {
	if i.Restart {
		return 0, nil
	}
	offset, err := i.mark.read(i.Bucket)
	if err != nil || offset == 0 {
		return 0, err
	}
	if _, err := in.(io.Seeker).Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	fmt.Fprintf(s.err, "going on at byte %d, where an earlier import of %s stopped (--restart begins anew)\n", offset, i.File)
	return offset, nil
}

// run reads lines and hands them to workers; the mark follows the records that
// are done without a gap.
func (i *importer) run(ctx context.Context, in io.Reader, offset int64) error {
	work := make(chan record, i.InFlight)
	var wg sync.WaitGroup
	for range i.InFlight {
		wg.Go(func() {
			for r := range work {
				i.handle(ctx, r)
			}
		})
	}
	err := i.feed(ctx, in, offset, work)
	close(work)
	wg.Wait()
	return errors.Join(err, ctx.Err())
}

func (i *importer) feed(ctx context.Context, in io.Reader, offset int64, work chan<- record) error {
	lines := bufio.NewReaderSize(in, 1<<20)
	for n := int64(1); ; n++ {
		raw, err := readLine(lines)
		offset += int64(len(raw))
		if trimmed := bytes.TrimSpace(raw); len(trimmed) > 0 {
			i.mark.begin(n, offset)
			select {
			case work <- record{line: n, end: offset, raw: trimmed}:
			case <-ctx.Done():
				return nil
			}
			i.progress.advance(offset)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

// readLine returns a line of its own memory, its end included.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("longer than %d bytes", maxLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// handle writes one record. When the run is interrupted the record stays
// undone, so that the next run does it.
func (i *importer) handle(ctx context.Context, r record) {
	err := i.write(ctx, r.raw)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		i.progress.failed.Add(1)
		i.fail(r, err)
	} else {
		i.progress.done.Add(1)
	}
	i.mark.done(r.line, i.Bucket)
}

// write puts the record under its key, replacing what is there.
func (i *importer) write(ctx context.Context, raw []byte) error {
	key, err := keyOf(raw, i.KeyField)
	if err != nil {
		return err
	}
	var opts []client.Option
	if !i.Blind {
		o, err := i.bucket.Get(ctx, key)
		if err != nil {
			return err
		}
		opts = append(opts, client.After(o.Context))
	}
	_, err = i.bucket.Put(ctx, key, raw, opts...)
	return err
}

// keyOf reads the key out of a record.
func keyOf(raw []byte, field string) (string, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return "", fmt.Errorf("not a JSON object: %w", err)
	}
	value, ok := fields[field]
	if !ok {
		return "", fmt.Errorf("no field %q", field)
	}
	var text string
	if err := json.Unmarshal(value, &text); err == nil {
		return text, nil
	}
	var number json.Number
	if err := json.Unmarshal(value, &number); err != nil {
		return "", fmt.Errorf("field %q is neither a string nor a number: %s", field, value)
	}
	return number.String(), nil
}

// fail keeps a record that could not be written.
func (i *importer) fail(r record, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.firstErr == nil {
		i.firstErr = fmt.Errorf("line %d: %w", r.line, err)
	}
	if i.failed == nil {
		f, openErr := os.OpenFile(i.failedPath(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if openErr != nil {
			i.firstErr = errors.Join(i.firstErr, openErr)
			return
		}
		i.failed = f
	}
	if _, writeErr := i.failed.Write(append(bytes.Clone(r.raw), '\n')); writeErr != nil {
		i.firstErr = errors.Join(i.firstErr, writeErr)
	}
}

func (i *importer) failedPath() string {
	switch {
	case i.Failed != "":
		return i.Failed
	case i.File == "" || i.File == "-":
		return "import.failed"
	}
	return i.File + ".failed"
}

// report prints the counts; the error is not nil if anything is not done.
func (i *importer) report(s *streams, err error) error {
	done, failed := i.progress.done.Load(), i.progress.failed.Load()
	fmt.Fprintf(s.out, "imported %d, failed %d\n", done, failed)
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted; the same command goes on from here")
	case err != nil:
		return err
	case failed > 0:
		return fmt.Errorf("%d records failed and are in %s; first: %w", failed, i.failedPath(), i.firstErr)
	}
	return i.mark.remove()
}

func (i *importer) close() error {
	if i.failed == nil {
		return nil
	}
	return i.failed.Close()
}
