package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/client/lookup"
)

// errName: a name in quotation marks that is not a Go string.
var errName = errors.New("a name in quotation marks must be a Go string, such as \"a\\x00b\"")

// named is a bucket or a key as it was typed: as it is, or in quotation marks with escapes.
func named(s string) (string, error) {
	if len(s) < 2 || !strings.HasPrefix(s, `"`) || !strings.HasSuffix(s, `"`) {
		return s, nil
	}
	name, err := strconv.Unquote(s)
	if err != nil {
		return "", fmt.Errorf("%w: %s", errName, s)
	}
	return name, nil
}

// key answers what there is of a key, in which Error says who did not answer.
func (p *Page) key(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	bucket, err := named(query.Get("bucket"))
	key, err2 := named(query.Get("key"))
	if err := errors.Join(err, err2); err != nil {
		p.fail(w, http.StatusBadRequest, err)
		return
	}
	select {
	case p.lookups <- struct{}{}:
		defer func() { <-p.lookups }()
	default:
		p.fail(w, http.StatusServiceUnavailable, fmt.Errorf("%d keys are being looked up already; try again", maxLookups))
		return
	}
	p.mu.Lock()
	c, err := p.use()
	p.mu.Unlock()
	if err != nil {
		p.fail(w, http.StatusServiceUnavailable, err)
		return
	}
	defer p.release()
	ctx, cancel := context.WithTimeout(r.Context(), lookWait)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	found, err := lookup.Ask(ctx, c.Cluster(), bucket, key)
	switch {
	case errors.Is(err, client.ErrInvalid):
		p.fail(w, http.StatusBadRequest, err)
	case found == nil:
		p.fail(w, http.StatusServiceUnavailable, err)
	default:
		p.write(w, http.StatusOK, keyJSON{printableReport(found), problem(err)})
	}
}

// keyJSON is what there is of a key.
type keyJSON struct {
	*lookup.Report
	Error string `json:"error,omitempty"`
}

func problem(err error) string {
	if err == nil {
		return ""
	}
	return printable(err.Error())
}

// printableReport escapes what is not made by nodes, but by those who named nodes and keys.
func printableReport(r *lookup.Report) *lookup.Report {
	r.Bucket, r.Key = printable(r.Bucket), printable(r.Key)
	for i := range r.Findings {
		r.Findings[i] = printable(r.Findings[i])
	}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		n.Node, n.Role, n.Problem = printable(n.Node), printable(n.Role), printable(n.Problem)
		for j := range n.Copies {
			n.Copies[j].For = printable(n.Copies[j].For)
		}
	}
	for i := range r.Versions {
		r.Versions[i].By = printable(r.Versions[i].By)
	}
	return r
}
