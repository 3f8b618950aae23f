"""Measures of pictures and videos: fidelity (PSNR, SSIM), perceptual distance, NIQE, VMAF.

Training a feature extractor belongs in `train`. Only `perceptual` imports Keras, and only `vmaf` runs ffmpeg.
"""
