"""When a view that keeps changing is due: after some quiet, or after the longest wait, whichever comes first.

Pure: no clock, no thread, no I/O. Times are seconds of any steadily rising clock, given by the caller. What is counted
here is latency only; that a view is dirty stands in PostgreSQL before it is counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Window:
    """One view's open window: `first` and `last` are the times of its events; it ends not before `not_before`."""

    first: float
    last: float
    quiet: float
    longest: float
    events: int
    not_before: float = 0.0

    @property
    def due_at(self) -> float:
        """When the window ends if nothing more comes."""
        return max(min(self.last + self.quiet, self.first + self.longest), self.not_before)


@dataclass
class Debouncer:
    """The open windows by view. A burst is one window; a steady stream is one window every longest wait."""

    windows: dict[str, Window] = field(default_factory=dict[str, Window])

    def add(self, view: str, now: float, *, quiet: float, longest: float, events: int = 1) -> None:
        """Count `events` of `view` at `now`; the first of them opens its window."""
        window = self.windows.get(view) or Window(now, now, quiet, longest, 0)
        self.windows[view] = replace(window, last=now, quiet=quiet, longest=longest, events=window.events + events)

    def due(self, now: float) -> list[str]:
        """The views whose window has ended, the longest waiting first. They stay until `close` or `postpone`."""
        ended = [(window.due_at, view) for view, window in self.windows.items() if window.due_at <= now]
        return [view for _, view in sorted(ended)]

    def seconds_to_next(self, now: float) -> float | None:
        """Seconds until the next window ends, at least 0; None when none is open."""
        if not self.windows:
            return None
        return max(0.0, min(window.due_at for window in self.windows.values()) - now)

    def close(self, view: str) -> Window:
        """Take the view's window away; the next event opens another one."""
        return self.windows.pop(view)

    def postpone(self, view: str, until: float) -> None:
        """Leave the window open until `until` at least, whatever its own end is."""
        self.windows[view] = replace(self.windows[view], not_before=until)

    def open_views(self) -> Iterable[str]:
        """The views with an open window, as of now."""
        return tuple(self.windows)
