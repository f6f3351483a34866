package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode"

	"github.com/hashicorp/consul/api"
)

// Consul's answers are untrusted: these bound what one may cost.
const (
	// maxConsulAnswer is the longest answer that is read, in bytes: the records
	// of maxListed nodes and more.
	maxConsulAnswer = 8 << 20
	// maxConsulError is how much of an error's text is kept, in bytes.
	maxConsulError = 300
	// maxListed is how many addresses are taken from a list.
	maxListed = 1000
	// maxHost is the longest host name in bytes (RFC 1035).
	maxHost = 253
)

// errAnswerSize: an answer was cut off.
var errAnswerSize = errors.New("the answer is too long")

// consulClient is one connection to the agent, with the token of its making.
type consulClient struct {
	*api.Client
	http *http.Client
	// secrets must not be shown; rotates: the token comes from a file, which
	// may be written anew.
	secrets []string
	rotates bool
}

// newConsulClient makes a client from the address and from Consul's usual
// environment: CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE, CONSUL_CACERT,
// CONSUL_CLIENT_CERT and so on.
func newConsulClient(address string) (*consulClient, error) {
	config := api.DefaultConfig()
	config.Address = address
	c := &consulClient{secrets: consulSecrets(config), rotates: config.TokenFile != ""}
	hc, err := api.NewHttpClient(config.Transport, config.TLSConfig)
	if err != nil {
		return nil, c.explain(err)
	}
	// A redirect would carry the token to wherever it leads.
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	hc.Transport = boundedTransport{config.Transport}
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		// The library would replace the transport by one without bounds.
		dialer := &net.Dialer{}
		config.Transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
		config.Address = "localhost"
	}
	config.HttpClient, c.http = hc, hc
	if c.Client, err = api.NewClient(config); err != nil {
		return nil, c.explain(err)
	}
	return c, nil
}

// consulSecrets lists what the environment holds that must reach no log.
func consulSecrets(c *api.Config) []string {
	var out []string
	if c.Token != "" {
		out = append(out, c.Token)
	}
	if c.TokenFile != "" {
		// What is wrong with the file is reported by the client that reads it.
		if b, err := os.ReadFile(c.TokenFile); err == nil && strings.TrimSpace(string(b)) != "" {
			out = append(out, strings.TrimSpace(string(b)))
		}
	}
	if c.HttpAuth != nil && c.HttpAuth.Password != "" {
		out = append(out, c.HttpAuth.Password)
	}
	return out
}

// boundedTransport ends answers that are too long with an error.
type boundedTransport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	limit := int64(maxConsulAnswer)
	if resp.StatusCode != http.StatusOK {
		limit = 64 << 10
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: limit}
	return resp, nil
}

// CloseIdleConnections lets http.Client close what the transport holds.
func (b boundedTransport) CloseIdleConnections() {
	if c, ok := b.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errAnswerSize
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// safeError is an error whose text is short and shows no secret.
type safeError struct {
	text  string
	cause error
}

// Error implements error.
func (e *safeError) Error() string { return e.text }

// Unwrap returns the cause, for errors.Is; its text is not for logs.
func (e *safeError) Unwrap() error { return e.cause }

// explain makes an error of the library fit for people and logs.
func (c *consulClient) explain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	var status api.StatusError
	if errors.As(err, &status) {
		text = fmt.Sprintf("status %d: %s", status.Code, strings.Join(strings.Fields(status.Body), " "))
		if status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden {
			err = fmt.Errorf("%w: %w", ErrConsulDenied, err)
			text = ErrConsulDenied.Error() + ": " + text
		}
	}
	for _, s := range c.secrets {
		text = strings.ReplaceAll(text, s, "[secret]")
		text = strings.ReplaceAll(text, url.QueryEscape(s), "[secret]")
	}
	if len(text) > maxConsulError {
		text = text[:maxConsulError] + " ..."
	}
	return &safeError{text: strings.ToValidUTF8(text, "?"), cause: err}
}

// kind is an error's text without what differs each time, like port numbers.
func kind(err error) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, err.Error())
}

// checkConsulAddress accepts host:port, http and https URLs with a port, and
// unix sockets.
func checkConsulAddress(address string) error {
	rest := address
	if scheme, after, ok := strings.Cut(address, "://"); ok {
		switch scheme {
		case "unix":
			if after == "" {
				return errors.New("the socket's path is missing")
			}
			return nil
		case "http", "https":
			rest, _, _ = strings.Cut(after, "/")
		default:
			return fmt.Errorf("scheme %q is not http, https or unix", scheme)
		}
	}
	if strings.Contains(rest, "@") {
		return errors.New("a password does not belong here; set CONSUL_HTTP_AUTH")
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("%q is not host:port", rest)
	}
	return nil
}
