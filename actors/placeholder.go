package actors

import "github.com/dynactor/dynactor/dynamo"

func (s *Services) filledFacts() (uint64, []dynamo.Partition) { return 0, nil }
func (s *Services) idle() bool                                { return false }
