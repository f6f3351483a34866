package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// watchInstances tells seeds about every change of the list.
func (c *consul) watchInstances(ctx context.Context, seeds func([]string)) {
	c.watch(ctx, topicList, func(o *api.QueryOptions) (uint64, error) {
		entries, meta, err := c.client.Load().Health().Service(c.service, "", true, o)
		if err != nil {
			return 0, err
		}
		l := c.read(entries)
		c.took(l)
		if len(l.addresses) > 0 {
			seeds(l.addresses)
		}
		return meta.LastIndex, c.judge(l, meta)
	})
}

// judge says why a list cannot be believed: Consul hides what a token may not
// see and does not say so, and a hidden cluster must not be founded again.
func (c *consul) judge(l listing, meta *api.QueryMeta) error {
	c.mu.Lock()
	since := c.since
	c.mu.Unlock()
	switch {
	case l.own || since.IsZero() || time.Since(since) < c.times.settle:
		return nil // or the registration's own problem, or not one yet
	case meta.ResultsFilteredByACLs:
		return fmt.Errorf("%w: %w", ErrConsulHidden, ErrConsulDenied)
	}
	return fmt.Errorf("%w (if that stays so, the token may not read services or nodes)", ErrConsulHidden)
}

// took notes a list.
func (c *consul) took(l listing) {
	c.mu.Lock()
	c.current = l
	switch {
	case !l.own:
		c.visible = time.Time{}
	case c.visible.IsZero():
		c.visible = time.Now()
	}
	c.mu.Unlock()
	if l.unusable > 0 || l.more {
		c.log.Debug("passed over instances", slog.Int("unusable", l.unusable), slog.Bool("more", l.more))
	}
}

// watch repeats a blocking query for ever. The query gets its options, with a
// deadline, and returns the index to wait from; an error after a read answer
// is a judgement on it: the index stands.
func (c *consul) watch(ctx context.Context, topic string, query func(*api.QueryOptions) (uint64, error)) {
	var index uint64
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		next, err := c.ask(ctx, topic, index, query)
		if ctx.Err() != nil {
			return
		}
		if next < index {
			next = 0 // another agent, or one that lost its data: begin anew
		}
		index = next
		c.report(topic, err)
		if index == 0 {
			c.unseen(topic)
			wait(ctx, c.backoff(failures))
			failures++
			continue
		}
		failures = 0
		// A list that changes all the time, or an agent that does not wait,
		// must not keep this node busy.
		wait(ctx, c.times.backoffMin-time.Since(began))
	}
}

// ask runs one blocking query. An agent that stopped answers never: only the
// deadline ends the call.
func (c *consul) ask(ctx context.Context, topic string, index uint64, query func(*api.QueryOptions) (uint64, error)) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.times.wait+c.times.wait/16+c.times.call)
	defer cancel()
	o := &api.QueryOptions{WaitIndex: index, WaitTime: c.times.wait, RequireConsistent: index == 0}
	if topic == topicList && !c.shown() {
		o.WaitTime = c.times.settle // look again soon
	}
	next, err := query(o.WithContext(ctx))
	return next, c.client.Load().explain(err)
}

// shown reports whether the list shows this node.
func (c *consul) shown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.visible.IsZero()
}

// unseen forgets that the list showed this node.
func (c *consul) unseen(topic string) {
	if topic != topicList {
		return
	}
	c.mu.Lock()
	c.visible = time.Time{}
	c.mu.Unlock()
}

// listing is one answer of the registry about who is registered.
type listing struct {
	// addresses are those of instances, sorted by the registry's order, without
	// repetitions.
	addresses []string
	// own: this node's own registration is among them.
	own bool
	// unusable entries were passed over; more: there are more than maxListed.
	unusable int
	more     bool
}

// read takes what is usable from an answer.
func (c *consul) read(entries []*api.ServiceEntry) listing {
	var l listing
	seen := map[string]bool{}
	for _, e := range entries {
		address, err := instanceAddress(e)
		if err != nil {
			l.unusable++
			continue
		}
		if e.Service.ID == c.id && address == c.address && e.Service.Meta["store"] == c.store {
			l.own = true
		}
		if seen[address] {
			continue
		}
		if len(l.addresses) == maxListed {
			l.more = true
			continue
		}
		seen[address] = true
		l.addresses = append(l.addresses, address)
	}
	return l
}

// instanceAddress is where an instance says it can be reached.
func instanceAddress(e *api.ServiceEntry) (string, error) {
	if e == nil || e.Service == nil {
		return "", errors.New("empty entry")
	}
	host := e.Service.Address
	if host == "" && e.Node != nil {
		host = e.Node.Address
	}
	if err := checkHost(host); err != nil {
		return "", err
	}
	if e.Service.Port < 1 || e.Service.Port > 65535 {
		return "", fmt.Errorf("port %d", e.Service.Port)
	}
	return net.JoinHostPort(host, strconv.Itoa(e.Service.Port)), nil
}

// checkHost accepts an address that one node can have, or a host name.
func checkHost(host string) error {
	if ip := net.ParseIP(host); ip != nil {
		if ip.IsUnspecified() || ip.IsMulticast() || ip.Equal(net.IPv4bcast) {
			return fmt.Errorf("%s is no address of a node", host)
		}
		return nil
	}
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}
	if host == "" || len(host) > maxHost || strings.IndexFunc(host, bad) >= 0 {
		return errors.New("malformed host")
	}
	return nil
}
