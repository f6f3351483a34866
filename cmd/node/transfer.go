package main

type importCmd struct{}
type exportCmd struct{}

func (importCmd) Run() error { return nil }
func (exportCmd) Run() error { return nil }
