/* The arithmetic of static/network.js in WebAssembly: rows of convolutions, and what lies before and after them.

   A feature map is float32, channels last; each of its rows has pixels of zeros beside it. Built, without a library, by

   pip install ziglang==0.17.1
   python -m ziglang cc -target wasm32-freestanding -O3 -msimd128 -nostdlib -Wl,--no-entry -Wl,--import-memory \
       -Wl,--strip-all -Wl,-z,stack-size=16384 imagesr/serve/kernel/film.c -o imagesr/serve/static/film.wasm */

#include <stdint.h>
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name))) void name
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS int clamp(int at, int length) { return at < 0 ? 0 : at < length ? at : length - 1; }

/* Convolutions: `pixels` neighbours at a time, of 4 * `vectors` outputs each, so that their sums stay in registers. */
ALWAYS void convolve(const float *const *rows, float *out, const float *weights, const float *bias, const float *added,
                     int width, int relu, int channels, int side, int vectors, int pixels)
{
    for (int x = 0; x < width; x += pixels) {
        v128_t sum[3][4];
        for (int p = 0; p < pixels; p++)
            for (int v = 0; v < vectors; v++) sum[p][v] = wasm_v128_load(bias + 4 * v);
        const float *weight = weights;
        for (int y = 0; y < side; y++) {
            const float *in = rows[y] + x * channels;
#pragma clang loop unroll_count(4)
            for (int i = 0; i < side * channels; i++, weight += 4 * vectors)
                for (int p = 0; p < pixels; p++) {
                    v128_t value = wasm_v128_load32_splat(in + p * channels + i);
                    for (int v = 0; v < vectors; v++)
                        sum[p][v] = wasm_f32x4_add(sum[p][v], wasm_f32x4_mul(wasm_v128_load(weight + 4 * v), value));
                }
        }
        for (int p = 0; p < pixels; p++)
            for (int v = 0; v < vectors; v++) {
                int at = 4 * ((x + p) * vectors + v);
                v128_t value = sum[p][v];
                if (relu) value = wasm_f32x4_pmax(value, wasm_f32x4_const_splat(0));
                if (added) value = wasm_f32x4_add(value, wasm_v128_load(added + at));
                wasm_v128_store(out + at, value);
            }
    }
}

#define CONVOLUTION(channels, side, outputs, pixels)                                                                   \
    EXPORT(conv_##channels##_##side##_##outputs)(const float *const *rows, float *out, const float *weights,           \
                                                 const float *bias, const float *added, int width, int relu)           \
    {                                                                                                                  \
        convolve(rows, out, weights, bias, added, width, relu, channels, side, outputs / 4, pixels);                   \
    }
CONVOLUTION(4, 3, 12, 3)
CONVOLUTION(4, 3, 16, 2)
CONVOLUTION(4, 5, 12, 3)
CONVOLUTION(4, 5, 16, 2)
CONVOLUTION(16, 3, 12, 3)
CONVOLUTION(16, 3, 16, 2)

/* space_to_depth(2) of two rows of luma from `y` on, `border` pixels wider on both sides; the picture is mirrored. */
ALWAYS int mirrored(int at, int length)
{
    at = at < 0 ? -at : at;
    return at < length ? at : 2 * (length - 1) - at;
}

EXPORT(unshuffle)(const uint8_t *luma, float *out, int width, int height, int y, int border, float offset)
{
    const uint8_t *rows[2] = {luma + mirrored(y, height) * width, luma + mirrored(y + 1, height) * width};
    for (int x = -border; x < width + border; x += 2, out += 4)
        for (int i = 0; i < 4; i++) out[i] = (float)rows[i >> 1][mirrored(x + (i & 1), width)] - offset;
}

/* depth_to_space(factor) of a row: `factor` rows of luma, rounded half to even and clipped to 8 bits. */
EXPORT(shuffle)(const float *in, uint8_t *out, int width, int factor, int channels)
{
    int stride = width * factor;
    for (int x = 0; x < width; x++, in += channels, out += factor) {
        uint8_t codes[16];
        for (int i = 0; i < channels; i += 4) {
            v128_t whole = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(wasm_v128_load(in + i)));
            v128_t words = wasm_i16x8_narrow_i32x4(whole, whole);
            wasm_v128_store32_lane(codes + i, wasm_u8x16_narrow_i16x8(words, words), 0);
        }
        for (int y = 0; y < factor; y++)
            for (int i = 0; i < factor; i++) out[y * stride + i] = codes[y * factor + i];
    }
}

/* Rows `first` to `last` of a plane resized by Catmull-Rom: the sample at i is the source's at i * ratio + shift. */
ALWAYS void weigh(float weights[4], float t)
{
    weights[0] = t * (-0.5f + t * (1 - 0.5f * t));
    weights[1] = 1 + t * t * (-2.5f + 1.5f * t);
    weights[2] = t * (0.5f + t * (2 - 1.5f * t));
    weights[3] = t * t * (-0.5f + 0.5f * t);
}

EXPORT(resize)(const uint8_t *in, uint8_t *out, float *row, int width, int height, int out_width, int first, int last,
               float ratio, float across, float down)
{
    float w[4];
    for (int y = first; y < last; y++) {
        float at = y * ratio + down, low = __builtin_floorf(at);
        weigh(w, at - low);
        const uint8_t *rows[4];
        for (int i = 0; i < 4; i++) rows[i] = in + clamp((int)low + i - 1, height) * width;
        for (int x = 0; x < width; x++)
            row[x + 2] = w[0] * rows[0][x] + w[1] * rows[1][x] + w[2] * rows[2][x] + w[3] * rows[3][x];
        row[0] = row[1] = row[2];
        row[width + 2] = row[width + 3] = row[width + 1];
        for (int x = 0; x < out_width; x++) {
            float at = x * ratio + across, low = __builtin_floorf(at);
            const float *from = row + 1 + clamp((int)low, width);
            weigh(w, at - low);
            float value = w[0] * from[0] + w[1] * from[1] + w[2] * from[2] + w[3] * from[3] + 0.5f;
            *out++ = value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
        }
    }
}

/* Two planes of chroma out of one, in which they alternate. */
EXPORT(separate)(const uint8_t *both, uint8_t *blue, uint8_t *red, int samples)
{
    for (int i = 0; i < samples; i++) blue[i] = both[2 * i], red[i] = both[2 * i + 1];
}

/* BT.709 video in 4:2:0, 16 to 235, of RGBA pixels. Width and height are even. */
EXPORT(planes)(const uint8_t *rgba, uint8_t *luma, uint8_t *blue, uint8_t *red, int width, int height)
{
    for (int i = 0; i < width * height; i++)
        luma[i] = 16.5f + 0.182586f * rgba[4 * i] + 0.614231f * rgba[4 * i + 1] + 0.062007f * rgba[4 * i + 2];
    for (int y = 0; y < height; y += 2)
        for (int x = 0; x < width; x += 2) {
            const uint8_t *at = rgba + 4 * (y * width + x);
            float sum[3];
            for (int i = 0; i < 3; i++) sum[i] = 0.25f * (at[i] + at[i + 4] + at[i + 4 * width] + at[i + 4 * width + 4]);
            *blue++ = 128.5f - 0.100644f * sum[0] - 0.338572f * sum[1] + 0.439216f * sum[2];
            *red++ = 128.5f + 0.439216f * sum[0] - 0.398942f * sum[1] - 0.040274f * sum[2];
        }
}

/* A plane with its last column and row repeated. */
EXPORT(extend)(const uint8_t *in, uint8_t *out, int width, int height, int out_width, int out_height)
{
    for (int y = 0; y < out_height; y++)
        for (int x = 0; x < out_width; x++) *out++ = in[clamp(y, height) * width + clamp(x, width)];
}
