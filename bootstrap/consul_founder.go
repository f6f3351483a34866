package bootstrap

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/hashicorp/consul/api"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/founding"
)

// founderEntry is the value of the founder's key: the one cluster of a name,
// and who founded it.
type founderEntry struct {
	ClusterID string        `json:"cluster_id"`
	Founder   dynamo.NodeID `json:"founder"`
}

// parseFounder checks an entry: others may have written it.
func parseFounder(raw []byte) (founderEntry, error) {
	var e founderEntry
	if err := json.Unmarshal(raw, &e); err != nil {
		return e, fmt.Errorf("%w: %w", ErrConsulEntry, err)
	}
	if id, err := hex.DecodeString(e.ClusterID); err != nil || len(id) != len(founding.ClusterID{}) {
		return e, fmt.Errorf("%w: cluster id %.40q", ErrConsulEntry, e.ClusterID)
	}
	if err := e.Founder.Validate(); err != nil {
		return e, fmt.Errorf("%w: founder: %w", ErrConsulEntry, err)
	}
	return e, nil
}

// Elects implements Discovery.
func (c *consul) Elects() bool { return true }

// Elect implements Discovery: a compare-and-set of a key that must not exist.
func (c *consul) Elect(ctx context.Context, id founding.ClusterID) (bool, dynamo.NodeID, error) {
	own := founderEntry{ClusterID: hex.EncodeToString(id[:]), Founder: dynamo.NodeID(c.node)}
	// Twice: another node may be quicker between the read and the write.
	for range 2 {
		there, found, _, err := c.readFounder((&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
		switch {
		case err != nil:
			return false, "", fmt.Errorf("consul: %w", c.client.Load().explain(err))
		case found && there.ClusterID == own.ClusterID:
			return true, own.Founder, nil
		case found && there.Founder == own.Founder:
			return false, "", fmt.Errorf("consul: %w: %s founded it with another data directory (key %s)", ErrFoundedElsewhere, c.node, c.key)
		case found:
			return false, there.Founder, nil
		}
		won, err := c.writeFounder(ctx, own)
		if err != nil {
			return false, "", fmt.Errorf("consul: %w", c.client.Load().explain(err))
		}
		if won {
			c.log.Info("elected to found the cluster", slog.String("id", own.ClusterID))
			return true, own.Founder, nil
		}
	}
	return false, "", fmt.Errorf("consul: key %s changes too fast", c.key)
}

// Confirm implements Discovery.
func (c *consul) Confirm(id founding.ClusterID, founder dynamo.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.wanted == founderEntry{}
	c.wanted = founderEntry{ClusterID: hex.EncodeToString(id[:]), Founder: founder}
	if first {
		close(c.confirmed)
	}
}

// keepFounder watches the founder's key once there is a cluster, and writes it
// again when Consul has lost it. A key that names another cluster is never
// overwritten: that is for people to look into.
func (c *consul) keepFounder(ctx context.Context) {
	select {
	case <-c.confirmed:
	case <-ctx.Done():
		return
	}
	c.watch(ctx, topicFounder, func(o *api.QueryOptions) (uint64, error) {
		there, found, index, err := c.readFounder(o)
		if err != nil {
			return index, err
		}
		c.mu.Lock()
		wanted := c.wanted
		c.mu.Unlock()
		switch {
		case !found:
			if err := c.rewrite(o.Context(), wanted); err != nil {
				return 0, err // and try again
			}
		case there.ClusterID != wanted.ClusterID:
			return index, fmt.Errorf("%w: key %s says %s founded %s, this node is in %s",
				ErrFoundedElsewhere, c.key, there.Founder, there.ClusterID, wanted.ClusterID)
		}
		return index, nil
	})
}

// rewrite puts the key back. When another member was quicker, the watch shows
// it.
func (c *consul) rewrite(ctx context.Context, wanted founderEntry) error {
	won, err := c.writeFounder(ctx, wanted)
	if won {
		c.log.Info("consul did not know the cluster any more; wrote the founder's key again", slog.String("key", c.key))
	}
	return err
}

// readFounder reads the key. The index is that of the answer, also when the
// entry cannot be read.
func (c *consul) readFounder(o *api.QueryOptions) (e founderEntry, found bool, index uint64, err error) {
	pair, meta, err := c.client.Load().KV().Get(c.key, o)
	if err != nil {
		return e, false, 0, err
	}
	if pair == nil {
		return e, false, meta.LastIndex, nil
	}
	e, err = parseFounder(pair.Value)
	return e, err == nil, meta.LastIndex, err
}

// writeFounder puts the entry in if there is none.
func (c *consul) writeFounder(ctx context.Context, e founderEntry) (bool, error) {
	raw, err := json.Marshal(e)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.times.call)
	defer cancel()
	won, _, err := c.client.Load().KV().CAS(&api.KVPair{Key: c.key, Value: raw}, (&api.WriteOptions{}).WithContext(ctx))
	return won, err
}
