// Package blackbox has tests of clusters of real node processes that are harmed
// while a load works on them: they are killed, frozen and stopped, cut off from
// each other, slowed down, their disks fill, and members come and go. What the load
// wrote in its journal is judged by a program of its own, test/check.
//
// Harm to networks and disks needs root, since it happens in namespaces of its own;
// nothing of it is left when the test ends, however it ends.
package blackbox
