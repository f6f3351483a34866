package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/dynactor/dynactor/storage"
	"github.com/dynactor/dynactor/storage/memory"
	"github.com/dynactor/dynactor/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEngine(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Engine { return memory.New() })
}
