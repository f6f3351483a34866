//go:build web

package page_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// browsers are the names that Chromium goes by.
var browsers = []string{"chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell"}

// browser is a tab of a real browser, with what it complained about and whom it asked.
type browser struct {
	context.Context
	mu        sync.Mutex
	complains []string
	asked     map[string]bool // hosts
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	i := slices.IndexFunc(browsers, func(name string) bool { _, err := exec.LookPath(name); return err == nil })
	if i < 0 {
		t.Fatalf("none of %v is installed; on Debian: apt-get install chromium", browsers)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browsers[i]), chromedp.UserDataDir(t.TempDir()))
	if os.Getuid() == 0 { // its sandbox does not work for root
		options = append(options, chromedp.NoSandbox)
	}
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancelTab := chromedp.NewContext(allocator)
	t.Cleanup(cancelTab)
	ctx, cancelTime := context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancelTime)
	b := &browser{Context: ctx, asked: map[string]bool{}}
	b.do(t)
	if err := chromedp.Listen(ctx, b.heard); err != nil {
		t.Fatal(err)
	}
	call(t, b, log.Enable, cdp.Empty{})
	call(t, b, network.Enable, network.EnableParams{})
	call(t, b, runtime.Enable, cdp.Empty{})
	return b
}

func (b *browser) heard(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			b.complains = append(b.complains, e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		b.complains = append(b.complains, fmt.Sprint(e.ExceptionDetails.Text))
	case *network.EventRequestWillBeSent:
		b.asked[e.Request.URL] = true
	}
}

func (b *browser) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b, actions...); err != nil {
		t.Fatalf("%v; the browser said %q", err, b.complained())
	}
}

func (b *browser) complained() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.complains)
}

// call sends a command of the protocol.
func call[P, R any](t *testing.T, b *browser, command cdp.Command[P, R], p P) {
	t.Helper()
	if _, err := chromedp.Call(b, command, p); err != nil {
		t.Fatal(err)
	}
}

// run is what an action returns.
func run[T any](t *testing.T, b *browser, a chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(b, a)
	if err != nil {
		t.Fatalf("%v; the browser said %q", err, b.complained())
	}
	return v
}

// until waits for an expression to become true.
func (b *browser) until(t *testing.T, what, expression string) {
	t.Helper()
	if _, err := chromedp.Run(b, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(30*time.Second))); err != nil {
		text := run(t, b, chromedp.Evaluate[string](`document.body.innerText`))
		t.Fatalf("%s: %v; the page has:\n%s\nthe browser said %q", what, err, text, b.complained())
	}
}

// text is what an element shows.
func (b *browser) text(t *testing.T, selector string) string {
	t.Helper()
	return run(t, b, chromedp.Text(selector))
}

// picture saves what the page looks like for a person to look at, if PAGE_PICTURES names a folder.
func (b *browser) picture(t *testing.T, name string) {
	t.Helper()
	folder := os.Getenv("PAGE_PICTURES")
	if folder == "" {
		return
	}
	png := run(t, b, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
}

// looks sets the size of the window and the scheme of colours.
func (b *browser) looks(t *testing.T, width, height int64, scheme string) {
	t.Helper()
	call(t, b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 600})
	call(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// load puts and gets keys until the function that it returns is called.
func (c *cluster) load(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := strconv.Itoa(w) + "-" + strconv.Itoa(i%500)
				if _, err := c.client.Bucket("carts").Put(ctx, key, []byte(key)); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				if _, err := c.client.Bucket("carts").Get(ctx, key); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	end := func() { cancel(); wg.Wait() }
	t.Cleanup(end)
	return end
}

// TestPageInBrowser looks at a cluster under load as a person would.
func TestPageInBrowser(t *testing.T) {
	c := start(t)
	stop := c.load(t)
	b := newBrowser(t)
	b.looks(t, 1400, 900, "light")
	b.do(t, chromedp.Navigate(c.pages[0]))
	b.until(t, "nodes and their requests", `document.querySelectorAll("#nodes tbody tr").length === 3 && /\d/.test(document.querySelector("#throughput").getAttribute("aria-label") || "")`)
	b.until(t, "latency", `/p99.9 [\d.]+ (µs|ms)/.test(document.querySelector("#latency").getAttribute("aria-label"))`)
	b.until(t, "throughput", `[...document.querySelectorAll("#nodes tbody tr")].every((r) => parseFloat(r.cells[8].textContent) > 0)`)
	if got := b.text(t, "#live"); got != "live" {
		t.Errorf("the page says %q", got)
	}
	b.until(t, "a plot", `document.querySelectorAll(".plot canvas").length === 2`)
	parts := run(t, b, chromedp.Evaluate[int](`document.querySelectorAll("#ring path[data-node]").length`))
	if parts != 16*3 {
		t.Errorf("the ring has %d parts, want those of 16 partitions and 3 replicas", parts)
	}
	b.until(t, "actors", `[...document.querySelectorAll("#actors tbody tr")].some((r) => /vnode\/\d+/.test(r.textContent))`)
	b.picture(t, "wide-light")
	b.looks(t, 1400, 900, "dark")
	b.picture(t, "wide-dark")
	for _, scheme := range []string{"light", "dark"} {
		b.looks(t, 360, 740, scheme)
		b.until(t, "nothing is wider than a phone", `document.documentElement.scrollWidth <= 360`)
		b.picture(t, "phone-"+scheme)
	}
	stop()
	b.checkQuiet(t, c.pages[0])
}

// checkQuiet: the page had no error, and came from its node alone.
func (b *browser) checkQuiet(t *testing.T, from string) {
	t.Helper()
	if said := b.complained(); len(said) > 0 {
		t.Errorf("the browser said %q", said)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for url := range b.asked {
		if !strings.HasPrefix(url, from) {
			t.Errorf("the page asked %s", url)
		}
	}
}

// TestPageKeyLookup looks a key with two siblings up, with the keyboard alone.
func TestPageKeyLookup(t *testing.T) {
	c := start(t)
	ctx := t.Context()
	for _, value := range []string{"one", "two"} { // neither has seen the other
		if _, err := c.client.Bucket("carts").Put(ctx, "alice", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	b := newBrowser(t)
	b.do(t, chromedp.Navigate(c.pages[1]), chromedp.WaitReady("#lookup"))
	b.until(t, "live", `document.querySelector("#live").textContent === "live"`)
	b.do(t, chromedp.Focus(`input[name=bucket]`), chromedp.KeyEvent("carts"), chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent("alice"), chromedp.KeyEvent(kb.Enter))
	b.until(t, "an answer", `document.querySelectorAll("#found table").length === 2`)
	found := b.text(t, "#found")
	for _, want := range []string{"2 siblings", "n1", "n2", "n3", "replica 1", "neither was written with a context that has the other"} {
		if !strings.Contains(found, want) {
			t.Errorf("the look-up does not say %q:\n%s", want, found)
		}
	}
	if strings.Contains(found, "two") && strings.Contains(found, "one\n") {
		t.Errorf("the page shows values:\n%s", found)
	}
	b.picture(t, "key")
	b.checkQuiet(t, c.pages[1])
}

// TestPageKeyboard: everything that can be used can be reached with the Tab key, and shows it.
func TestPageKeyboard(t *testing.T) {
	c := start(t)
	b := newBrowser(t)
	b.do(t, chromedp.Navigate(c.pages[0]), chromedp.WaitReady("#lookup"))
	b.until(t, "nodes", `document.querySelectorAll("#nodes tbody tr").length === 3`)
	reached := map[string]bool{}
	for range 20 {
		b.do(t, chromedp.KeyEvent(kb.Tab))
		at := run(t, b, chromedp.Evaluate[string](`(() => {
			const e = document.activeElement;
			return e.name || e.className || e.tagName.toLowerCase();
		})()`))
		reached[at] = true
		if at == "skip" {
			if !run(t, b, chromedp.Evaluate[bool](`document.activeElement.getBoundingClientRect().left >= 0`)) {
				t.Error("the link that skips is not seen when it has the focus")
			}
		}
	}
	for _, want := range []string{"skip", "summary", "scroll", "bucket", "key", "button"} {
		if !reached[want] {
			t.Errorf("Tab does not reach %s, only %v", want, reached)
		}
	}
}

// TestPageHostileNames: names of buckets and keys with markup and controls are texts.
func TestPageHostileNames(t *testing.T) {
	c := start(t)
	hostile := "<img src=x onerror=\"document.title='owned'\">\x1b]0;owned\x07\u202eabc\x00"
	if _, err := c.client.Bucket("carts").Put(t.Context(), hostile, []byte("x")); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t)
	b.do(t, chromedp.Navigate(c.pages[0]), chromedp.WaitReady("#lookup"), chromedp.SetValue("input[name=bucket]", "carts"),
		chromedp.SetValue("input[name=key]", fmt.Sprintf("%q", hostile)), chromedp.Click("#lookup button"))
	b.until(t, "an answer", `document.querySelectorAll("#found table").length === 2`)
	title, images := run(t, b, chromedp.Title()), run(t, b, chromedp.Evaluate[int](`document.images.length`))
	if strings.Contains(title, "owned") || images > 0 {
		t.Errorf("a name became markup: title %q, %d images", title, images)
	}
	b.do(t, chromedp.SetValue("input[name=key]", `"\x"`), chromedp.Click("#lookup button"))
	b.until(t, "a problem", `/must be a Go string/.test(document.querySelector("#found .problem")?.textContent)`)
}

// TestPageShowsADeadNode: a node that stops is shown, and the page goes on.
func TestPageShowsADeadNode(t *testing.T) {
	c := start(t)
	b := newBrowser(t)
	b.looks(t, 1400, 900, "light")
	b.do(t, chromedp.Navigate(c.pages[0]))
	b.until(t, "all answer", `/3 of 3/.test(document.querySelector("#cards")?.textContent)`)
	c.stop(t, 2)
	b.until(t, "two answer", `/2 of 3/.test(document.querySelector("#cards").textContent) && !document.querySelector("#problems").hidden`)
	b.until(t, "its partitions are pale", `document.querySelectorAll("#ring path.away").length === 16`)
	b.picture(t, "dead-node")
	c.stop(t, 0)
	b.until(t, "no connection", `document.querySelector("#live").className === "off"`)
}
