"""What can go wrong, each kind with the exit code of the command line.

NextbarError                     1  something failed
├── ConfigError                  2  the command line or the run file says something that cannot be
│   └── BundleError              2  a bundle is missing, damaged, or does not fit the run file
├── DataError                    3  bars are missing, malformed or impossible
├── BrokerError                  4  the broker, or the authentication with it, failed
├── RiskHalt                     5  a risk limit stopped trading
├── StrategyError                1  a strategy could not be loaded, or raised while it ran
│   └── LookAheadError           1  a strategy asked for a bar that is not there yet
└── StorageError                 1  a folder or file could not be written

A message is one sentence: what failed, what was expected, what was found, how to mend it.
"""


class NextbarError(Exception):
    """Root of every error that nextbar raises on purpose; ``exit_code`` is the process's."""

    exit_code = 1


class ConfigError(NextbarError):
    """The command line or the run file says something that cannot be; names the YAML path."""

    exit_code = 2


class BundleError(ConfigError):
    """A bundle is missing, damaged, or does not fit the run file."""


class DataError(NextbarError):
    """Bars are missing, malformed or impossible; names the file and row where there is one."""

    exit_code = 3


class BrokerError(NextbarError):
    """The broker, or the authentication with it, failed."""

    exit_code = 4


class RiskHalt(NextbarError):
    """A risk limit stopped trading; the message says which limit and the value that met it."""

    exit_code = 5


class StrategyError(NextbarError):
    """A strategy could not be loaded, or raised while it ran; names the file or the bar."""


class LookAheadError(StrategyError, IndexError):
    """A strategy asked for a bar that is not there yet, or for one before the first."""


class StorageError(NextbarError):
    """A folder or file could not be written; nothing half-written is left behind."""
