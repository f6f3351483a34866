package bootstrap

import "log/slog"

func newConsul(Config, Identity, *slog.Logger) Discovery { panic("in the making") }
