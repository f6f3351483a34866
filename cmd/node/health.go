package main

import (
	"encoding/json"
	"net/http"
	"time"
)

// partitions asks a node how many partitions it serves; 0 if it does not say.
func partitions(address string) int {
	c := http.Client{Timeout: 2 * time.Second}
	resp, err := c.Get("http://" + address + "/readyz")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var s struct {
		Health struct {
			Serving int `json:"serving"`
		} `json:"health"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return 0
	}
	return s.Health.Serving
}
