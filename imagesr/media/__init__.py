"""Files to frames and pictures, and back. This folder alone knows PyAV and libvips.

Videos: `source` reads, with `clock` for timestamps, `deinterlace`, and `opening` for what may be opened. `writer`
writes, with `encoders`, `containers`, `audio` (sound is copied or converted), `subtitles`, `sidedata`. `samples`
decodes sound for players. `colour` knows matrices and ranges. Photos: `photos` and its `photo_*`. Arrays of training
pictures: `images`. How large a result is belongs in `video` and `image`.
"""
