"""A file of a wanted size: the upscaled film is kept, and encoded until the file is as large as asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial

from imagesr.cli import check_interrupted
from imagesr.errors import OutputError
from imagesr.media.encoders import encoder_formats
from imagesr.media.frames import Frame, Packet, has_alpha
from imagesr.media.source import Source
from imagesr.media.writer import Writer
from imagesr.video.encoding import SMALLEST, average, most_kilobits
from imagesr.video.segments import Folder, Job

_AIM = 0.97
_RAISE = 4  # times the bit rate at most: where pictures are too simple for the size, a rate for it would mean nothing
_MORE = 1.01  # times the size, at least, that a higher rate must give
_PICKY, _TRIES = 3, 6  # encodings after which any file that is small enough will do, and after which there are no more
# What keeps the film meanwhile, the first that takes its pixel format: the eye sees no loss, and it takes some four
# times the space of the default quality.
_KEEP = {
    "libx264": {"crf": "8", "preset": "superfast"},
    "libx265": {"crf": "8", "preset": "superfast", "x265-params": "log-level=error"},
    "prores_ks": {"profile": "4444"},  # transparency
}


@contextmanager
def writing(
    folder: Folder, job: Job, source: Source, trial: Writer, open_source: Callable[[], Source]
) -> Iterator[TargetWriter]:
    """Yield the writer of a file of `job.options.target_size`, which holds the folder while the block runs.

    `trial` is a Writer that has said what it keeps and loses, `open_source` opens the input once more. Raises
    ValueError where another run holds the folder.
    """
    folder.claim()
    try:
        info, encoding = source.info, dict(job.encoding)
        codec = encoding["codec"]
        kept_by = next(
            (c for c in _KEEP if info.pix_fmt in encoder_formats(c) and not has_alpha(info.pix_fmt)), "prores_ks"
        )
        more = {key: encoding[key] for key in ("size", "threads", "shape")}
        keep = Writer(folder.film, info, codec=kept_by, options=_KEEP[kept_by], **more)

        def make_writer(again, kilobits):
            again.tag_for(encoding["size"][1])
            options = encoding["options"] | average(codec, min(kilobits, most_kilobits(codec)))
            more = encoding | {"options": options, "verify": job.verify}
            return Writer(job.out, again, sound=job.options.audio, **more)

        open_film = partial(Source, folder.film, deinterlace="off", alpha=has_alpha(info.pix_fmt))
        writer = TargetWriter(keep, make_writer, open_source, open_film, round(job.options.target_size * 1e6))
        writer.describe(trial)
        del trial  # its encoder holds memory
        yield writer
    finally:
        folder.remove()
        folder.release()


class TargetWriter:
    """Write a film so that its file has at most `target` bytes, and less than 93 % of them only where it is simple.

    `write` keeps the frames; `finish` encodes them, with the other streams of the input, until the size is right. It
    has what a Writer has.

    Args:
        keep: The Writer that keeps the frames.
        make_writer: Returns the Writer of the output for a source, which is opened again, and kilobits per second.
        open_source: Opens the input once more.
        open_film: Opens what was kept.
        target: The size in bytes.
    """

    def __init__(
        self,
        keep: Writer,
        make_writer: Callable[[Source, float], Writer],
        open_source: Callable[[], Source],
        open_film: Callable[[], Source],
        target: int,
    ):
        self._keep, self._make_writer, self._target = keep, make_writer, target
        self._open_source, self._open_film = open_source, open_film
        self._begin = self._end = None
        self.kept: list[str] = []
        self.dropped: list[str] = []
        self.notes: list[str] = []
        self.conversions: list[str] = []
        self.lost = ""

    def describe(self, writer: Writer) -> None:
        """Take what a Writer of the output says of its streams."""
        self.kept, self.dropped, self.notes = writer.kept, writer.dropped, writer.notes
        self.conversions, self.lost = writer.conversions, writer.lost

    def frames_of(self, source: Iterable[Frame | Packet]) -> Iterator[Frame]:
        """Yield the frames of a source: its other streams are read at the end."""
        for item in source:
            if isinstance(item, Frame):
                yield item
            check_interrupted()

    def write(self, frame: Frame) -> None:
        """Keep a frame."""
        if self._begin is None:
            self._begin, self._tick = frame.pts * frame.time_base, frame.time_base
        self._end = (frame.pts + (frame.duration or 1)) * frame.time_base
        self._keep.write(frame)

    def finish(self) -> None:
        """Encode the film until its file has the size, and give the file its name; raises OutputError."""
        self._keep.finish()
        seconds = max(float(self._end - self._begin), 0.001)
        size = beside = 0
        kilobits = _AIM * self._target / 125 / seconds
        for tries in range(1, _TRIES + 1):
            before, writer = size, self._encoded(kilobits)
            size = writer.part.stat().st_size
            beside = size - writer.video_bytes
            # The rate was raised after a file that was small enough; one that is hardly larger shows what is needed.
            full = 0 < before <= self._target and size < _MORE * before
            if size <= self._target and (size >= SMALLEST * self._target or full or tries > _PICKY):
                self._place(writer)
                self.describe(writer)
                self._note_size(size, tries, full=full)
                return
            writer.discard()
            if beside >= _AIM * self._target:
                break
            kilobits *= min(_RAISE, (_AIM * self._target - beside) / max(1, writer.video_bytes))
        raise OutputError(
            f"Expected a target size that can be reached. The smallest file of {self._target / 1e6:g} MB asked for has "
            f"{size / 1e6:.3g} MB, {beside / 1e6:.3g} of them beside the picture"
        )

    def _place(self, writer):
        """Verify a file, which may take as long as decoding it and the input, and give it its name."""
        try:
            writer.verify()
            writer.place()
        except BaseException:
            writer.discard()
            raise

    def _note_size(self, size, tries, *, full):
        """Note how often the film was encoded, and that it does not fill the size."""
        if tries > 1:
            self.notes.append(f"it was encoded {tries} times to reach the size")
        if size < SMALLEST * self._target:
            why = ": its pictures are simple, and a higher bit rate makes it no larger" if full else ""
            self.notes.append(f"the file is smaller than the {self._target / 1e6:g} MB asked for{why}")

    def _encoded(self, kilobits):
        """Return a Writer whose file is complete; it is not verified, and has no name yet."""
        with self._open_source() as source, self._open_film() as film:
            source.skip_frames()
            writer = self._make_writer(source, kilobits)
            try:
                beside = (item for item in source if isinstance(item, Packet))
                for item in heapq.merge(self._frames(film), beside, key=_time):
                    check_interrupted()
                    writer.write(item)
                writer.close()
            except BaseException:
                writer.discard()
                raise
        return writer

    def _frames(self, film):
        """Yield the frames that were kept, in their times: a file begins at zero, the film may begin later."""
        shift = None
        for frame in (item for item in film if isinstance(item, Frame)):
            begin = frame.pts * frame.time_base
            shift = self._begin - begin if shift is None else shift
            duration = Fraction(frame.duration or 0) * frame.time_base
            frame.pts, frame.duration = round((begin + shift) / self._tick), round(duration / self._tick)
            frame.time_base = self._tick
            yield frame

    def discard(self) -> None:
        """Remove what was kept."""
        self._keep.discard()


def _time(item):
    stamp = item.pts if item.dts is None or isinstance(item, Frame) else item.dts
    return -1.0 if stamp is None else float(stamp * item.time_base)
