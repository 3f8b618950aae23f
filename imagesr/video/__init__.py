"""Videos: `imagesr video`, `imagesr.upscale_video`.

`upscale` joins a source, upscalers and a writer; `pipeline` lets them overlap. `upscaler` upscales one frame: luma by
the engines, chroma by swscale. `arrays` does so for NumPy arrays, `segments` makes long runs that can be interrupted,
`batch` plans which file becomes which. Files, colours and codecs belong in `media`, networks in `engines`.
"""
