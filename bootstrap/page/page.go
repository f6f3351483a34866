// Package page is what a node shows to browsers: the ring, its nodes and what they do, live and
// read-only. It is a client of the cluster like any other, so that what it shows is what the
// console shows.
package page

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/dynactor/dynactor/client"
)

//go:embed assets
var assets embed.FS

// Limits of what browsers may cost a node.
const (
	// maxViewers is how many pages may be open at once.
	maxViewers = 100
	// maxLookups is how many keys may be looked up at once.
	maxLookups = 8
)

// Config says what a page shows.
type Config struct {
	// Self is the name of the node that serves it.
	Self string
	// Connect makes a client of the cluster. It is called when somebody looks, and the client is
	// closed when nobody does any more.
	Connect func() (*client.Client, error)
	// Log gets what an operator should see.
	Log *slog.Logger
	// Every is the time between two looks at the cluster, 0 for a second. All viewers share them.
	Every time.Duration
}

// Page serves the dashboard.
type Page struct {
	config  Config
	lookups chan struct{}
	// life ends when the page is closed.
	life   context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu sync.Mutex
	// client is there while it has users.
	client *client.Client
	users  int
	stream stream
}

// New makes a page; Close ends it.
func New(c Config) *Page {
	if c.Every == 0 {
		c.Every = time.Second
	}
	p := &Page{config: c, lookups: make(chan struct{}, maxLookups), stream: stream{changed: make(chan struct{})}}
	p.life, p.cancel = context.WithCancel(context.Background())
	return p
}

// Register adds the page to a server: / and what is below /assets/ and /api/.
func (p *Page) Register(mux *http.ServeMux) {
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the name is a constant that fs.Sub takes
	}
	served := http.FileServerFS(files)
	mux.Handle("GET /{$}", guarded(served))
	mux.Handle("GET /assets/", guarded(http.StripPrefix("/assets", served)))
	mux.Handle("GET /api/events", guarded(http.HandlerFunc(p.events)))
	mux.Handle("GET /api/key", guarded(http.HandlerFunc(p.key)))
}

// policy: everything comes from the node itself, and nothing of it runs from a text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// guarded tells browsers to take nothing from elsewhere, and not to show the page in another.
func guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" && r.URL.Path != "/" {
			http.Error(w, "not for other sites", http.StatusForbidden)
			return
		}
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-cache")
		h.ServeHTTP(w, r)
	})
}

var errClosed = errors.New("the node stops")

// End ends all streams, and lets nobody begin another.
func (p *Page) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancel()
}

// Close is End, and waits until nothing of the page runs: a browser that does not take what it is
// sent must be cut off for that.
func (p *Page) Close() {
	p.End()
	p.wg.Wait()
}

// use is the client, until release is called. The caller holds the lock.
func (p *Page) use() (*client.Client, error) {
	if p.life.Err() != nil {
		return nil, errClosed
	}
	if p.client == nil {
		c, err := p.config.Connect()
		if err != nil {
			return nil, err
		}
		p.client = c
	}
	p.users++
	p.wg.Add(1)
	return p.client, nil
}

func (p *Page) release() {
	defer p.wg.Done()
	p.mu.Lock()
	var unused *client.Client
	if p.users--; p.users == 0 {
		unused, p.client = p.client, nil
	}
	p.mu.Unlock()
	if unused == nil {
		return
	}
	if err := unused.Close(); err != nil {
		p.config.Log.Warn("page", slog.Any("error", err))
	}
}

// fail answers with an error that a page can show.
func (p *Page) fail(w http.ResponseWriter, status int, err error) {
	p.write(w, status, struct {
		Error string `json:"error"`
	}{printable(err.Error())})
}

func (p *Page) write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		p.config.Log.Error("page", slog.Any("error", err))
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(b); err != nil {
		p.config.Log.Debug("http client went away", slog.Any("error", err))
	}
}
