"""Videos: `imagesr video`, `imagesr.upscale_video`.

`upscale` joins what `prepare` opens and loads with a writer; `pipeline` lets them overlap. `upscaler` upscales one
frame: luma by the engines, chroma by swscale. `unchanged` finds where it differs from the frame before, `realtime`
holds a rate, `arrays` takes NumPy arrays. `segments` makes long runs that can be interrupted, `shares` lets others
make them, `target` reaches a size of the file, `estimate` tries a run out, `batch` plans which file becomes which.
Files, colours and codecs belong in `media`, networks in `engines`.
"""
