package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

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

// record is one line of the input and its key, or why it has none.
type record struct {
	line int64
	raw  []byte
	key  string
	err  error
}

// retryFor is how long a record is tried again for that no quorum takes, as
// when the cluster is overloaded for a while.
const retryFor = time.Minute

// importer is a run.
type importer struct {
	*importCmd
	bucket   *client.Bucket
	progress *progress
	mark     *mark
	before   place // where an interrupted run stopped
	mu       sync.Mutex
	failed   *os.File
	firstErr error
}

// Run writes all records and reports how many failed.
func (c *importCmd) Run(ctx context.Context, s *streams) error {
	if c.InFlight < 1 {
		return usageError("--in-flight must be at least 1")
	}
	in, of, err := c.input(s)
	if err != nil {
		return err
	}
	defer in.Close()
	return c.one(func(cl *client.Client) error {
		if err := c.ready(ctx, cl); err != nil {
			return err
		}
		i := &importer{importCmd: c, bucket: cl.Bucket(c.Bucket), mark: newMark(c.markPath(), of)}
		if err := i.resume(s, in); err != nil {
			return err
		}
		i.progress = newProgress(s.err, "import", of.Size)
		err = i.run(ctx, in)
		i.progress.end()
		return errors.Join(i.report(s, err), i.close())
	})
}

// input opens the file, or takes standard input, and says what is imported.
func (c *importCmd) input(s *streams) (io.ReadCloser, place, error) {
	of := place{Bucket: c.Bucket, Key: c.KeyField}
	if c.piped() {
		return io.NopCloser(s.in), of, nil
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, of, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, of, errors.Join(err, f.Close())
	}
	of.Size, of.Modified = info.Size(), info.ModTime()
	return f, of, nil
}

// piped: the records come from standard input, which cannot be read again.
func (c *importCmd) piped() bool { return c.File == "" || c.File == "-" }

// markPath is where the place of an interrupted run is kept.
func (c *importCmd) markPath() string {
	if c.piped() {
		return ""
	}
	return c.File + ".progress"
}

// resume goes on where an interrupted run of the same import stopped.
func (i *importer) resume(s *streams, in io.Reader) error {
	if i.Restart {
		return nil
	}
	if err := i.mark.read(); err != nil {
		return err
	}
	i.before = i.mark.place
	if i.before.Offset == 0 {
		return nil
	}
	if _, err := in.(io.Seeker).Seek(i.before.Offset, io.SeekStart); err != nil {
		return err
	}
	fmt.Fprintf(s.err, "going on after line %d, where an earlier import of %s stopped (--restart begins anew)\n", i.before.Line, i.File)
	return nil
}

// run reads lines and hands them to workers; the mark follows the records that
// are done without a gap.
func (i *importer) run(ctx context.Context, in io.Reader) error {
	workers := make([]chan record, i.InFlight)
	var wg sync.WaitGroup
	for w := range workers {
		workers[w] = make(chan record, 4)
		wg.Go(func() {
			for r := range workers[w] {
				i.handle(ctx, r)
			}
		})
	}
	err := i.feed(ctx, in, workers)
	for _, w := range workers {
		close(w)
	}
	wg.Wait()
	return errors.Join(err, ctx.Err())
}

// feed hands out records. Those of one key go to one worker, so that they are
// written in the order of their lines and not as siblings.
func (i *importer) feed(ctx context.Context, in io.Reader, workers []chan record) error {
	seed := maphash.MakeSeed()
	lines := bufio.NewReaderSize(in, 1<<20)
	offset := i.before.Offset
	for n := i.before.Line + 1; ; n++ {
		raw, err := readLine(lines)
		offset += int64(len(raw))
		if trimmed := bytes.TrimSpace(raw); len(trimmed) > 0 {
			i.mark.begin(n, offset)
			r := record{line: n, raw: trimmed}
			r.key, r.err = keyOf(trimmed, i.KeyField)
			select {
			case workers[maphash.String(seed, r.key)%uint64(len(workers))] <- r:
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
	err := r.err
	if err == nil {
		err = i.persist(ctx, r)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		i.progress.failed.Add(1)
		i.fail(r, err)
	} else {
		i.progress.done.Add(1)
	}
	i.mark.done(r.line, err != nil)
}

// persist writes the record, again and again while the cluster cannot take it,
// with pauses that grow. A write whose outcome is unknown is repeated too: it
// replaces what the first one may have left, except in a blind import.
func (i *importer) persist(ctx context.Context, r record) error {
	end := time.Now().Add(retryFor)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := i.write(ctx, r)
		again := errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrOverloaded) || errors.Is(err, client.ErrUnknown) && !i.Blind
		if !again || time.Now().Add(pause).After(end) {
			return err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return err
		}
	}
}

// write puts the record under its key, replacing what is there.
func (i *importer) write(ctx context.Context, r record) error {
	var opts []client.Option
	if !i.Blind {
		o, err := i.bucket.Get(ctx, r.key)
		if err != nil {
			return err
		}
		opts = append(opts, client.After(o.Context))
	}
	_, err := i.bucket.Put(ctx, r.key, r.raw, opts...)
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
		how := os.O_TRUNC
		if i.before.Failed > 0 {
			how = os.O_APPEND // behind those of the interrupted run
		}
		f, openErr := os.OpenFile(i.failedPath(), os.O_CREATE|os.O_WRONLY|how, 0o600)
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
	case i.piped():
		return "import.failed"
	}
	return i.File + ".failed"
}

// report prints the counts, those before an interruption included; the error is not nil if anything is not done. Only
// an import that has not come to its end leaves a mark.
func (i *importer) report(s *streams, err error) error {
	done, failed := i.before.Done+i.progress.done.Load(), i.before.Failed+i.progress.failed.Load()
	fmt.Fprintf(s.out, "imported %d, failed %d\n", done, failed)
	switch {
	case errors.Is(err, context.Canceled) && i.piped():
		return errors.New("interrupted")
	case errors.Is(err, context.Canceled):
		i.mark.save()
		return errors.New("interrupted; the same command goes on from here")
	case err != nil:
		i.mark.save()
		return err
	case failed > 0:
		return errors.Join(i.failures(failed), i.mark.remove())
	}
	return i.mark.remove()
}

// failures says where the failed records are and why the first one failed, if
// that was in this run.
func (i *importer) failures(n uint64) error {
	err := fmt.Errorf("%d records failed and are in %s", n, i.failedPath())
	if i.firstErr != nil {
		err = fmt.Errorf("%w; first: %w", err, i.firstErr)
	}
	return err
}

func (i *importer) close() error {
	if i.failed == nil {
		return nil
	}
	return i.failed.Close()
}
