package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
)

// File is a configuration file that was read: settings under the names of the
// flags, and the buckets to create when the cluster is founded.
type File struct {
	Path     string
	Settings map[string]Setting
	Buckets  []member.Bucket
}

// Setting is one value of a file.
type Setting struct {
	Values []string
	Line   int
}

// settings are the names that a file may use, beside buckets.
var settings = []string{
	"name", "cluster", "listen", "advertise", "http", "data-dir", "seed", "consul", "found", "expect", "auto-join", "zone", "capacity",
	"partitions", "max-value", "max-requests", "timeout", "cache-mb", "hints-mb", "aae-interval", "background-floor", "reap", "tls-cert", "tls-key", "tls-ca", "otlp-endpoint", "trace-sample", "log-level", "log-format", "console-control",
}

// ReadFile reads a YAML configuration file. What is wrong with it comes back
// as one *Problems with every problem and its line.
func ReadFile(path string) (File, error) {
	f := File{Path: path, Settings: map[string]Setting{}}
	raw, err := os.ReadFile(path)
	if err != nil {
		return f, fmt.Errorf("configuration file: %w", err)
	}
	var doc, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return f, nil
	case err != nil:
		return f, &Problems{File: path, List: syntaxProblems(err)}
	}
	switch err := decoder.Decode(&more); {
	case err == nil:
		return f, &Problems{File: path, List: []Problem{{Line: more.Line, Text: "the file is more than one document (---)"}}}
	case !errors.Is(err, io.EOF):
		return f, &Problems{File: path, List: syntaxProblems(err)}
	}
	r := fileReader{file: &f}
	r.read(doc.Content[0])
	if len(r.problems) > 0 {
		return f, &Problems{File: path, List: r.problems}
	}
	return f, nil
}

// syntaxProblems takes the line out of the parser's own message.
func syntaxProblems(err error) []Problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	p := Problem{Text: text}
	if _, scanErr := fmt.Sscanf(text, "line %d: ", &p.Line); scanErr == nil {
		_, p.Text, _ = strings.Cut(text, ": ")
	}
	return []Problem{p}
}

// fileReader collects settings and problems of one file.
type fileReader struct {
	file     *File
	problems []Problem
}

func (r *fileReader) bad(n *yaml.Node, setting, format string, args ...any) {
	r.problems = append(r.problems, Problem{Setting: setting, Line: n.Line, Text: fmt.Sprintf(format, args...)})
}

func (r *fileReader) read(root *yaml.Node) {
	if root.Kind != yaml.MappingNode {
		r.bad(root, "", "the file is not a list of settings (name: value)")
		return
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		name := strings.ReplaceAll(key.Value, "_", "-")
		_, twice := r.file.Settings[name]
		switch {
		case name == "buckets":
			r.buckets(value)
		case !slices.Contains(settings, name):
			r.bad(key, key.Value, "unknown setting; known are %s and buckets", strings.Join(settings, ", "))
		case twice:
			r.bad(key, name, "set twice, first in line %d", r.file.Settings[name].Line)
		default:
			r.setting(name, value)
		}
	}
}

func (r *fileReader) setting(name string, value *yaml.Node) {
	s := Setting{Line: value.Line}
	switch value.Kind {
	case yaml.ScalarNode:
		s.Values = []string{value.Value}
	case yaml.SequenceNode:
		if name != "seed" {
			r.bad(value, name, "takes one value, not a list")
			return
		}
		for _, item := range value.Content {
			if item.Kind != yaml.ScalarNode {
				r.bad(item, name, "takes a list of values")
				return
			}
			s.Values = append(s.Values, item.Value)
		}
	default:
		r.bad(value, name, "takes a value, not a group of settings")
		return
	}
	if len(s.Values) == 1 && !fits(name, s.Values[0]) {
		r.bad(value, name, "%q is not %s", s.Values[0], kindNames[name])
		return
	}
	r.file.Settings[name] = s
}

const aNumber = "a number"

// kindNames says what the settings are that are not text.
var kindNames = map[string]string{
	"found": "true or false", "auto-join": "true or false", "timeout": "a time such as 5s", "expect": aNumber, "capacity": aNumber, "partitions": aNumber,
	"max-value": aNumber, "max-requests": aNumber, "cache-mb": aNumber,
}

// fits reports whether a value is of its setting's kind.
func fits(name, value string) bool {
	var err error
	switch kindNames[name] {
	case aNumber:
		_, err = strconv.Atoi(value)
	case kindNames["timeout"]:
		_, err = time.ParseDuration(value)
	case kindNames["found"]:
		return slices.Contains([]string{"true", "yes", "1", "false", "no", "0"}, strings.ToLower(value))
	}
	return err == nil
}

// bucketSpec is a bucket as the file writes it.
type bucketSpec struct {
	Name       string `yaml:"name"`
	N          *int   `yaml:"n"`
	R          *int   `yaml:"r"`
	W          *int   `yaml:"w"`
	PR         *int   `yaml:"pr"`
	PW         *int   `yaml:"pw"`
	Durability string `yaml:"durability"`
	Conflicts  string `yaml:"conflicts"`
	TTL        string `yaml:"ttl"`
}

func (r *fileReader) buckets(list *yaml.Node) {
	if list.Kind != yaml.SequenceNode {
		r.bad(list, "buckets", "takes a list of buckets")
		return
	}
	for _, item := range list.Content {
		if err := knownFields(item); err != nil {
			r.bad(item, "buckets", "%v", err)
			continue
		}
		var spec bucketSpec
		if err := item.Decode(&spec); err != nil {
			r.bad(item, "buckets", "%s", strings.Join(strings.Fields(err.Error()), " "))
			continue
		}
		b, errs := spec.bucket()
		for _, err := range errs {
			for text := range strings.SplitSeq(err.Error(), "\n") { // joined ones are a line each
				r.bad(item, "buckets", "%q: %s", spec.Name, strings.TrimPrefix(text, fmt.Sprintf("%q: ", spec.Name)))
			}
		}
		if len(errs) > 0 {
			continue
		}
		if slices.ContainsFunc(r.file.Buckets, func(other member.Bucket) bool { return other.Name == b.Name }) {
			r.bad(item, "buckets", "%q is there twice", b.Name)
			continue
		}
		r.file.Buckets = append(r.file.Buckets, b)
	}
}

// knownFields refuses misspelt properties, which decoding would pass over.
func knownFields(item *yaml.Node) error {
	if item.Kind != yaml.MappingNode {
		return errors.New("a bucket is a group of properties, beginning with name")
	}
	known := []string{"name", "n", "r", "w", "pr", "pw", "durability", "conflicts", "ttl"}
	for i := 0; i < len(item.Content); i += 2 {
		if name := item.Content[i].Value; !slices.Contains(known, name) {
			return fmt.Errorf("line %d: unknown property %q; known are %s", item.Content[i].Line, name, strings.Join(known, ", "))
		}
	}
	return nil
}

// bucket fills in the defaults and returns everything that is wrong.
func (s bucketSpec) bucket() (member.Bucket, []error) {
	p := bucket.Default()
	set := func(field *int, value *int) {
		if value != nil {
			*field = *value
		}
	}
	set(&p.Quorum.N, s.N)
	set(&p.Quorum.R, s.R)
	set(&p.Quorum.W, s.W)
	set(&p.Quorum.PR, s.PR)
	set(&p.Quorum.PW, s.PW)
	var errs []error
	check := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if s.Durability != "" {
		d, err := dynamo.ParseDurability(s.Durability)
		p.Durability = d
		check(err)
	}
	if s.Conflicts != "" {
		c, err := dynamo.ParseConflicts(s.Conflicts)
		p.Conflicts = c
		check(err)
	}
	if s.TTL != "" {
		d, err := time.ParseDuration(s.TTL)
		p.TTL = d
		if err != nil {
			check(fmt.Errorf("ttl %q is not a time such as 30m", s.TTL))
		}
	}
	b := member.Bucket{Name: s.Name, Properties: p}
	check(b.Validate())
	return b, errs
}
