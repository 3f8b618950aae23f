"""Container formats, in tables: which are read, which are written, and what each holds. It loads no library."""

from __future__ import annotations

# Containers that can hold frames of varying duration beside copied sound.
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts"}

# Endings of the files that are taken from a folder.
VIDEO_SUFFIXES = {
    *FORMATS,
    *(
        ".m2ts",
        ".mts",
        ".m2t",
        ".mpg",
        ".mpeg",
        ".m2v",
        ".vob",
        ".avi",
        ".divx",
        ".wmv",
        ".asf",
        ".flv",
        ".f4v",
        ".ogv",
    ),
    *(".ogm", ".qt", ".3gp", ".3g2", ".dv", ".mxf", ".nut", ".rm", ".rmvb", ".wtv", ".gif", ".apng", ".y4m", ".ivf"),
    *(".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".obu"),
}

# FFmpeg's names of the containers and raw streams that are read. Playlists and scripts (concat, hls, dash) are not
# among them: they open other files.
READ = (
    *("mov", "matroska", "mpegts", "mpeg", "mpegvideo", "avi", "asf", "flv", "live_flv", "ogg", "dv", "gif", "apng"),
    *("yuv4mpegpipe", "h264", "hevc", "vvc", "av1", "obu", "ivf", "m4v", "vc1", "h263", "h261", "mjpeg", "mxf", "nut"),
    *("rm", "wtv", "vob", "swf", "roq", "smk", "bink", "nsv", "gxf", "lxf", "cavsvideo", "dirac", "webp_pipe"),
    "wav",  # the sound alone
)
# Containers whose clock may begin anew in the middle, because parts were joined or a recording was interrupted.
RESTARTING = ("mpegts", "mpeg", "flv", "live_flv", "asf", "ogg", "nsv", "wtv")
# Streams without a container: their timestamps are made up.
RAW = ("h264", "hevc", "vvc", "mpegvideo", "m4v", "vc1", "h263", "h261", "cavsvideo", "dirac", "obu", "mjpeg")
# Containers with an index, which says how much there is.
INDEXED = ("mov", "avi", "matroska")

# Codecs of sound and subtitles that players of each container know, by FFmpeg's names of the codecs. The muxer is
# asked as well: it may refuse some of them.
_ISO_SOUND = {"aac", "mp3", "mp2", "ac3", "eac3", "alac", "flac", "opus", "dts"}
SOUND = {
    "mp4": _ISO_SOUND,
    "mov": {*_ISO_SOUND, "pcm_*", "adpcm_ima_qt", "qdm2"},
    "matroska": {
        *(
            *_ISO_SOUND,
            "vorbis",
            "truehd",
            "mlp",
            "mp1",
            "tta",
            "wavpack",
            "wmav1",
            "wmav2",
            "wmapro",
            "cook",
            "ra_144",
        ),
        *("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_u8", "pcm_s16be", "pcm_s24be"),
        *("pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav", "adpcm_yamaha", "gsm_ms", "wmalossless", "wmavoice"),
    },
    "webm": {"opus", "vorbis"},
    "mpegts": {"aac", "mp3", "mp2", "ac3", "eac3", "dts", "opus"},
}
TEXT_SUBTITLES = {"mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text", "sami", "microdvd", "stl", "realtext"}
SUBTITLES = {
    "mp4": {"mov_text"},
    "mov": {"mov_text"},
    "matroska": {"subrip", "ass", "ssa", "webvtt", "dvd_subtitle", "hdmv_pgs_subtitle", "dvb_subtitle"},
    "webm": {"webvtt"},
    "mpegts": {"dvb_subtitle", "dvb_teletext"},
}
# The text format that others are converted to.
TEXT_FORMAT = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
# Containers that say how a picture is to be turned.
TURNS = ("mp4", "mov", "matroska", "webm")


def holds(kinds: set[str], codec: str) -> bool:
    """Tell whether a codec is in a set of names, of which those with a star stand for many."""
    return codec in kinds or any(kind.endswith("*") and codec.startswith(kind[:-1]) for kind in kinds)
