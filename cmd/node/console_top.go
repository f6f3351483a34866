package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/dynactor/dynactor/client"
)

// topRows is how many actors of each node are asked for.
const topRows = 40

// orders are what top sorts by.
var orders = []struct {
	name string
	by   client.By
}{{"rate", client.ByRate}, {"waiting", client.ByWaiting}, {"oldest", client.ByOldest}}

// busyJSON is an actor and what it has to do, for scripts.
type busyJSON struct {
	actorJSON
	Rate float64 `json:"rate"`
}

// busyRow is an actor of a node.
type busyRow struct {
	node string
	client.Busy
}

// topLook is one look at all nodes.
type topLook struct {
	rows []busyRow
	all  int
	err  error
}

// topConsole is the actor that answers consoles. It is left out unless it is asked for, as it works
// just now on the answer: it would always be among the first.
const topConsole = "console"

// toTop reads what top takes: an order, and whether consoles are wanted, too.
func toTop(args []string) (order int, consoles bool, err error) {
	ordered := false
	for _, arg := range args {
		i := slices.IndexFunc(orders, func(o struct {
			name string
			by   client.By
		}) bool {
			return o.name == arg
		})
		switch {
		case arg == topConsole && !consoles:
			consoles = true
		case i >= 0 && !ordered:
			order, ordered = i, true
		default:
			return 0, false, usageError("usage: top [rate|waiting|oldest] [console] [on NODE]")
		}
	}
	return order, consoles, nil
}

// top shows the actors that have most to do: on the whole screen, or once where there is none.
func (x *consoleSession) top(ctx context.Context, args []string, on string) (shown, error) {
	order, consoles, err := toTop(args)
	if err != nil {
		return shown{}, err
	}
	first := x.busiest(ctx, orders[order].by, on, consoles)
	if first.err != nil && len(first.rows) == 0 {
		return shown{}, first.err
	}
	if isTerminal(x.out) && isTerminal(x.in) && !x.json {
		m := &topModel{x: x, on: on, consoles: consoles, order: order, look: first, height: 24, width: 80}
		// Signals end our context, and that quits. With the library's own handler of signals both end
		// the program, which then may wait forever; a context of its own ends it without its reader.
		p := tea.NewProgram(m, tea.WithoutSignalHandler(), tea.WithInput(x.in), tea.WithOutput(x.out))
		stop := context.AfterFunc(x.whole, p.Quit)
		defer stop()
		_, err := p.Run()
		return shown{}, err
	}
	// Rates are between two looks.
	select {
	case <-time.After(lookPause):
	case <-ctx.Done():
		return shown{}, ctx.Err()
	}
	look := x.busiest(ctx, orders[order].by, on, consoles)
	rows := []busyJSON{}
	for _, r := range look.rows {
		rows = append(rows, busyJSON{actorForScripts(r.node, r.Actor), r.Rate})
	}
	return shown{rows, func(w io.Writer) error { return showBusy(w, look.rows) }}, look.err
}

// busiest asks all nodes, or one, for the actors that have most to do, with consoles or without.
func (x *consoleSession) busiest(ctx context.Context, by client.By, on string, consoles bool) (out topLook) {
	type busy struct {
		some []client.Busy
		all  int
	}
	nodes, said, err := each(x, ctx, on, func(node string) (busy, error) {
		some, all, err := x.client.Cluster().Busiest(ctx, node, by, topRows+1) // one may be left out
		return busy{some, all}, err
	})
	out.err = err
	for _, node := range nodes {
		out.all += said[node].all
		for _, b := range said[node].some {
			if consoles || b.Name != topConsole {
				out.rows = append(out.rows, busyRow{node, b})
			}
		}
	}
	slices.SortStableFunc(out.rows, func(a, b busyRow) int { return by.Compare(&a.Busy, &b.Busy) })
	return out
}

func showBusy(w io.Writer, rows []busyRow) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tACTOR\tSTATE\tMSG/S\tQUEUED\tOLDEST\tHANDLED\tRESTARTS")
	for _, r := range rows {
		state := r.State()
		if r.InHandler >= time.Second {
			state += " for " + span(r.InHandler)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%d\t%d\n", safe(r.node), safe(r.Name), state, strconv.FormatFloat(r.Rate, 'f', 1, 64), r.Queued+r.Control, span(r.Oldest), r.Processed, r.Restarts)
	}
	return t.Flush()
}

// topModel is top on the whole screen.
type topModel struct {
	x             *consoleSession
	on            string
	consoles      bool
	order         int
	look          topLook
	height, width int
}

// lookDue is the time for the next look.
type lookDue struct{}

// Init implements tea.Model.
func (m *topModel) Init() tea.Cmd { return m.wait() }

func (m *topModel) wait() tea.Cmd {
	return tea.Tick(lookPause, func(time.Time) tea.Msg { return lookDue{} })
}

// ask looks again, away from the screen's goroutine.
func (m *topModel) ask() tea.Cmd {
	by, on, consoles, x := orders[m.order].by, m.on, m.consoles, m.x
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(x.whole, x.limit)
		defer cancel()
		return x.busiest(ctx, by, on, consoles)
	}
}

// Update implements tea.Model.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case lookDue:
		return m, m.ask()
	case topLook:
		m.look = msg
		return m, m.wait()
	case tea.WindowSizeMsg:
		m.height, m.width = msg.Height, msg.Width
	case tea.KeyPressMsg:
		switch key := msg.String(); key {
		case "q", "esc", "ctrl+c", "ctrl+d":
			return m, tea.Quit
		default:
			for i, o := range orders {
				if key == o.name[:1] {
					m.order = i
					slices.SortStableFunc(m.look.rows, func(a, b busyRow) int { return o.by.Compare(&a.Busy, &b.Busy) })
				}
			}
		}
	}
	return m, nil
}

// View implements tea.Model.
func (m *topModel) View() tea.View {
	v := tea.NewView(m.text())
	v.AltScreen = true
	return v
}

func (m *topModel) text() string {
	var table bytes.Buffer
	if err := showBusy(&table, m.look.rows[:min(len(m.look.rows), max(1, m.height-4))]); err != nil {
		return err.Error()
	}
	head := fmt.Sprintf("%s  %d actors, by %s", time.Now().Format(time.TimeOnly), m.look.all, orders[m.order].name)
	lines := []string{head, "sort by r: rate, w: waiting, o: oldest; q: quit"}
	if m.look.err != nil {
		lines[1] = strings.ReplaceAll(plain(m.look.err), "\n", "; ")
	}
	lines = append(lines, strings.Split(strings.TrimRight(table.String(), "\n"), "\n")...)
	for i, line := range lines {
		if r := []rune(line); len(r) > m.width {
			lines[i] = string(r[:m.width])
		}
	}
	return strings.Join(lines, "\n")
}
