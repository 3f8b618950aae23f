"""Timestamps of packets: moved to begin at zero, and to go on where a clock begins anew."""

from __future__ import annotations

import av

_BACK_S = 0.1  # decoding times that go back by more began anew
_AHEAD_S = 10.0  # a clock that leaps by more was interrupted


class Clock:
    """Move the packets of all streams of a file by the same offset.

    `zero` is the time in seconds that becomes zero. With `restarts` the clock of the file may begin anew, or leap,
    because parts were joined: all streams are then moved by one more offset, so that time goes on evenly.
    """

    def __init__(self, zero: float, *, restarts: bool):
        self._restarts = restarts
        self._offsets = [-zero]  # of each part, in seconds
        self._parts: dict[int, int] = {}  # the part that a stream is in
        self._seen: dict[int, tuple[float, float]] = {}  # the newest packet of a stream: begin and end, as in the file
        self._ends: dict[int, float] = {}  # where what a stream shows ends so far, as moved
        self._last: dict[int, int] = {}  # decoding time of the newest packet, as moved
        self.joined = 0

    def move(self, packet: av.Packet) -> None:
        """Give a packet its moved timestamps."""
        index, tick = packet.stream_index, packet.time_base
        if self._restarts and None not in (packet.pts, packet.dts) and abs(packet.pts - packet.dts) * tick > _AHEAD_S:
            packet.dts = None  # where parts were joined FFmpeg makes it up from the part before
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None:
            return
        if self._restarts and packet.stream.type in ("video", "audio"):
            shown = float((stamp if packet.pts is None else packet.pts) * tick)
            self._follow(index, float(stamp * tick), shown, float((packet.duration or 0) * tick))
        part = self._parts.get(index, len(self._offsets) - 1)
        offset = round(self._offsets[part] / tick)
        packet.pts = None if packet.pts is None else packet.pts + offset
        packet.dts = None if packet.dts is None else packet.dts + offset
        if part and packet.dts is not None:
            # Streams of the next part may begin a little before those of the last part ended.
            last = self._last.get(index)
            if last is not None and last - round(1 / tick) < packet.dts <= last:
                packet.dts = last + 1
                packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
        if packet.dts is not None:
            self._last[index] = packet.dts

    def _follow(self, index, begin, shown, duration):
        """Note the time of a packet; find out whether its stream has entered another part."""
        part = self._parts.setdefault(index, 0)
        if index in self._seen:
            before, _ = self._seen[index]
            newest = max(end for other, (_, end) in self._seen.items() if self._parts.get(other, 0) == part)
            if begin < before - _BACK_S or begin > newest + _AHEAD_S:
                part = self._parts[index] = part + 1
                if part == len(self._offsets):
                    self._offsets.append(max(self._ends.values()) - shown)
                    self.joined += 1
        self._seen[index] = begin, begin + duration
        self._ends[index] = max(self._ends.get(index, -1e9), shown + duration + self._offsets[part])
