# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The sums before and after the products of Winograd's convolution F(4×4, 3×3); called by `winograd.py`.

Letters: B images, C channels, H W both input and output. A tile is 4×4 places of the output, computed from 6×6 of the
input, with zeros around the map. Tiles are numbered image by image, row by row. Features are channels last, so that the
innermost loops run over neighbours in memory. Nothing checks shapes here.
"""

from cython.parallel cimport prange
from libc.stdlib cimport calloc, free

cdef extern from *:
    """
    #include <stddef.h>

    #ifdef _MSC_VER
    #define RESTRICT __restrict
    #else
    #define RESTRICT __restrict__
    #endif

    enum { RUN = 64 };  /* channels at a time: 36 rows of them stay in the first cache */

    /* One dimension of what a tile of the input becomes: six rows of n numbers → six (Lavin and Gray, 2016). */
    static inline void spread_rows(const float *RESTRICT a, const float *RESTRICT b, const float *RESTRICT c,
                                   const float *RESTRICT d, const float *RESTRICT e, const float *RESTRICT f,
                                   float *RESTRICT out, ptrdiff_t step, ptrdiff_t n) {
        float *RESTRICT p = out, *RESTRICT q = out + step, *RESTRICT r = out + 2 * step;
        float *RESTRICT s = out + 3 * step, *RESTRICT t = out + 4 * step, *RESTRICT u = out + 5 * step;
        for (ptrdiff_t i = 0; i < n; i++) {
            float even = e[i] - 4 * c[i], odd = d[i] - 4 * b[i], far_even = e[i] - c[i], far_odd = 2 * (d[i] - b[i]);
            p[i] = 4 * a[i] - 5 * c[i] + e[i];
            q[i] = even + odd;
            r[i] = even - odd;
            s[i] = far_even + far_odd;
            t[i] = far_even - far_odd;
            u[i] = 4 * b[i] - 5 * d[i] + f[i];
        }
    }

    /* One dimension of what products become in a tile of the output: six rows of n numbers, `gap` apart → four. */
    static inline void gather_rows(const float *RESTRICT in, ptrdiff_t gap, float *RESTRICT out, ptrdiff_t step,
                                   ptrdiff_t n) {
        const float *RESTRICT a = in, *RESTRICT b = in + gap, *RESTRICT c = in + 2 * gap;
        const float *RESTRICT d = in + 3 * gap, *RESTRICT e = in + 4 * gap, *RESTRICT f = in + 5 * gap;
        float *RESTRICT p = out, *RESTRICT q = out + step, *RESTRICT r = out + 2 * step, *RESTRICT s = out + 3 * step;
        for (ptrdiff_t i = 0; i < n; i++) {
            float near_sum = b[i] + c[i], near_difference = b[i] - c[i];
            float far_sum = d[i] + e[i], far_difference = d[i] - e[i];
            p[i] = a[i] + near_sum + far_sum;
            q[i] = near_difference + 2 * far_difference;
            r[i] = near_sum + 4 * far_sum;
            s[i] = near_difference + 8 * far_difference + f[i];
        }
    }

    static void spread(const float *image, const float *zeros, float *out, ptrdiff_t top, ptrdiff_t left,
                       ptrdiff_t height, ptrdiff_t width, ptrdiff_t channels) {
        float columns[36 * RUN];
        const float *at[6];
        for (ptrdiff_t first = 0; first < channels; first += RUN) {
            ptrdiff_t n = channels - first < RUN ? channels - first : RUN;
            for (ptrdiff_t x = 0; x < 6; x++) {
                for (ptrdiff_t y = 0; y < 6; y++) {
                    ptrdiff_t row = top + y, column = left + x;
                    int inside = row >= 0 && row < height && column >= 0 && column < width;
                    at[y] = inside ? image + (row * width + column) * channels + first : zeros;
                }
                spread_rows(at[0], at[1], at[2], at[3], at[4], at[5], columns + x * RUN, 6 * RUN, n);
            }
            for (ptrdiff_t y = 0; y < 6; y++) {
                const float *row = columns + y * 6 * RUN;
                spread_rows(row, row + RUN, row + 2 * RUN, row + 3 * RUN, row + 4 * RUN, row + 5 * RUN,
                            out + y * 6 * channels + first, channels, n);
            }
        }
    }

    static void gather(const float *in, const float *bias, float *image, ptrdiff_t top, ptrdiff_t left,
                       ptrdiff_t height, ptrdiff_t width, ptrdiff_t channels, int relu) {
        float columns[24 * RUN], rows[4 * RUN];
        for (ptrdiff_t first = 0; first < channels; first += RUN) {
            ptrdiff_t n = channels - first < RUN ? channels - first : RUN;
            for (ptrdiff_t x = 0; x < 6; x++)
                gather_rows(in + x * channels + first, 6 * channels, columns + x * RUN, 6 * RUN, n);
            for (ptrdiff_t y = 0; y < 4 && top + y < height; y++) {
                gather_rows(columns + y * 6 * RUN, RUN, rows, RUN, n);
                for (ptrdiff_t x = 0; x < 4 && left + x < width; x++) {
                    const float *RESTRICT sum = rows + x * RUN, *RESTRICT more = bias + first;
                    float *RESTRICT to = image + ((top + y) * width + left + x) * channels + first;
                    if (relu)
                        for (ptrdiff_t i = 0; i < n; i++) {
                            float value = sum[i] + more[i];
                            to[i] = value < 0 ? 0 : value;
                        }
                    else
                        for (ptrdiff_t i = 0; i < n; i++)
                            to[i] = sum[i] + more[i];
                }
            }
        }
    }
    """
    void spread(const float* image, const float* zeros, float* out, Py_ssize_t top, Py_ssize_t left, Py_ssize_t height,
                Py_ssize_t width, Py_ssize_t channels) noexcept nogil
    void gather(const float* source, const float* bias, float* image, Py_ssize_t top, Py_ssize_t left,
                Py_ssize_t height, Py_ssize_t width, Py_ssize_t channels, bint relu) noexcept nogil


def spread_tiles(const float[:, :, :, ::1] features, float[:, :, ::1] tiles, Py_ssize_t start, int threads):
    """Fills `tiles` [n,36,C] with the transforms of the tiles from `start` on of `features` [B,H,W,C]."""
    cdef Py_ssize_t height = features.shape[1], width = features.shape[2], channels = features.shape[3]
    cdef Py_ssize_t across = (width + 3) // 4, each = across * ((height + 3) // 4), count = tiles.shape[0]
    cdef Py_ssize_t n, place, image
    cdef const float* images = &features[0, 0, 0, 0]
    cdef float* out = &tiles[0, 0, 0]
    cdef float* zeros = <float*>calloc(channels, sizeof(float))
    if zeros == NULL:
        raise MemoryError
    for n in prange(count, nogil=True, num_threads=threads, schedule="static"):
        image = (start + n) // each
        place = (start + n) % each
        spread(images + image * height * width * channels, zeros, out + n * 36 * channels,
               place // across * 4 - 1, place % across * 4 - 1, height, width, channels)
    free(zeros)


def gather_tiles(const float[:, :, ::1] tiles, const float[::1] bias, float[:, :, :, ::1] features, Py_ssize_t start,
                 bint relu, int threads):
    """Writes to `features` [B,H,W,C] its tiles from `start` on, whose products are `tiles` [n,36,C], plus `bias` [C],
    and with `relu` no less than 0; NaN stays NaN."""
    cdef Py_ssize_t height = features.shape[1], width = features.shape[2], channels = features.shape[3]
    cdef Py_ssize_t across = (width + 3) // 4, each = across * ((height + 3) // 4), count = tiles.shape[0]
    cdef Py_ssize_t n, place, image
    cdef const float* source = &tiles[0, 0, 0]
    cdef const float* more = &bias[0]
    cdef float* images = &features[0, 0, 0, 0]
    for n in prange(count, nogil=True, num_threads=threads, schedule="static"):
        image = (start + n) // each
        place = (start + n) % each
        gather(source + n * 36 * channels, more, images + image * height * width * channels,
               place // across * 4, place % across * 4, height, width, channels, relu)
