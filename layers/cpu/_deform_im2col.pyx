# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Columns of a deformable convolution on the CPU and their gradients; called by `deform_columns.py`.

Letters: B images, C channels, H W input, H' W' output, K = kh·kw taps, G weight groups, O offset groups. A pixel n is
one of the B·H'·W' output places. Features are channels last, so that the innermost loops run over neighbours in memory;
all four corners of a sample are read there, those outside the map from a row of zeros. Nothing checks shapes here.

A column is float, double, or short; a short holds the bits of a bfloat16, while places and weights stay float.
"""

from cython.parallel cimport prange
from libc.math cimport floor
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

ctypedef fused real:
    float
    double

ctypedef fused column:
    float
    double
    short

cdef struct Layout:
    Py_ssize_t channels, height, width, out_width, pixels, kernel_width, taps
    Py_ssize_t group_channels, offset_channels  # channels of one weight group, of one offset group
    Py_ssize_t stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x

cdef struct Channels:  # a run of channels of one weight group and one offset group
    Py_ssize_t first, count, group, offset_group


cdef Layout describe(tuple features, tuple offsets, Py_ssize_t groups, tuple kernel, tuple stride, tuple padding,
                     tuple dilation):
    """The layout for shapes [B,H,W,C] of the features and [B,2·O·K,H',W'] of the offsets."""
    cdef Layout at
    at.height, at.width, at.channels = features[1:]
    at.out_width, at.pixels = offsets[3], offsets[2] * offsets[3]
    at.kernel_width, at.taps = kernel[1], kernel[0] * kernel[1]
    at.group_channels = at.channels // groups
    at.offset_channels = at.channels // (offsets[1] // (2 * at.taps))
    at.stride_y, at.stride_x = stride
    at.padding_y, at.padding_x = padding
    at.dilation_y, at.dilation_x = dilation
    return at


cdef inline Channels next_channels(const Layout* at, Py_ssize_t first, Py_ssize_t stop) noexcept nogil:
    """The longest run from `first` that stays in its groups and ends by `stop`."""
    cdef Channels run
    run.first, run.group, run.offset_group = first, first // at.group_channels, first // at.offset_channels
    stop = min(stop, (run.group + 1) * at.group_channels, (run.offset_group + 1) * at.offset_channels)
    run.count = stop - first
    return run


cdef inline float load(const column* place) noexcept nogil:
    """The number at `place`; never called for double columns, which are numbers themselves."""
    cdef unsigned int bits
    cdef float value
    if column is short:
        bits = (<unsigned int><unsigned short>place[0]) << 16
        memcpy(&value, &bits, 4)
        return value
    else:
        return <float>place[0]


cdef inline void store(column* place, real value) noexcept nogil:
    """Writes `value` to `place`; as bfloat16 it is rounded to nearest, ties to even, and NaN stays NaN."""
    cdef unsigned int bits
    cdef float single
    if column is short:
        single = <float>value
        memcpy(&bits, &single, 4)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 if value == value else 0x7FC0
        place[0] = <short>bits
    else:
        place[0] = <column>value


cdef inline void find_corners(const Layout* at, Py_ssize_t pixel, Py_ssize_t tap, real dy, real dx, Py_ssize_t* places,
                              real* fractions) noexcept nogil:
    """Fills `places` with the four input pixels (-1: outside) around a tap of output `pixel`, moved by dy, dx.

    `fractions` are how far the sample lies below and right of the first. Offsets of NaN give fractions of NaN.
    """
    cdef real y = (pixel // at.out_width) * at.stride_y - at.padding_y + (tap // at.kernel_width) * at.dilation_y
    cdef real x = (pixel % at.out_width) * at.stride_x - at.padding_x + (tap % at.kernel_width) * at.dilation_x
    cdef Py_ssize_t top, left
    cdef bint above, below, before, after
    y = y + dy
    x = x + dx
    places[0] = places[1] = places[2] = places[3] = -1
    fractions[0] = fractions[1] = 0
    # A sample at exactly -1 is zero, but its gradient by the offset is not: it counts.
    if y >= -1 and y < at.height and x >= -1 and x < at.width:
        top, left = <Py_ssize_t>floor(y), <Py_ssize_t>floor(x)
        fractions[0] = y - top
        fractions[1] = x - left
        above, below, before, after = top >= 0, top + 1 < at.height, left >= 0, left + 1 < at.width
        if above and before:
            places[0] = top * at.width + left
        if above and after:
            places[1] = top * at.width + left + 1
        if below and before:
            places[2] = (top + 1) * at.width + left
        if below and after:
            places[3] = (top + 1) * at.width + left + 1
    elif y != y or x != x:
        fractions[0] = fractions[1] = y + x


cdef inline void blend(const real* a, const real* b, const real* c, const real* d, const real* weights, column* out,
                       Py_ssize_t count) noexcept nogil:
    """Writes the weighted sum of four rows to `out`."""
    cdef real wa = weights[0], wb = weights[1], wc = weights[2], wd = weights[3]
    cdef Py_ssize_t i
    for i in range(count):
        store(out + i, wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i])


cdef inline void dot_products(const column* g, const real* a, const real* b, const real* c, const real* d, real* out,
                              Py_ssize_t count) noexcept nogil:
    """Writes the dot products of `g` with four rows to `out`."""
    cdef real with_a = 0, with_b = 0, with_c = 0, with_d = 0, value
    cdef Py_ssize_t i
    for i in range(count):
        if column is double:
            value = <real>g[i]
        else:
            value = load(g + i)
        with_a += value * a[i]
        with_b += value * b[i]
        with_c += value * c[i]
        with_d += value * d[i]
    out[0], out[1], out[2], out[3] = with_a, with_b, with_c, with_d


cdef inline void add_scaled(real* out, const column* g, real scale, Py_ssize_t count) noexcept nogil:
    """Adds `scale`·`g` to `out`."""
    cdef Py_ssize_t i
    for i in range(count):
        if column is double:
            out[i] += scale * <real>g[i]
        else:
            out[i] += scale * load(g + i)


cdef inline void corner_weights(const real* fractions, real scale, real* weights) noexcept nogil:
    cdef real below = fractions[0], right = fractions[1]
    weights[0] = scale * (1 - below) * (1 - right)
    weights[1] = scale * (1 - below) * right
    weights[2] = scale * below * (1 - right)
    weights[3] = scale * below * right


cdef inline void corner_rows(const Layout* at, const real* image, const real* zeros, const Py_ssize_t* places,
                             Py_ssize_t first, const real** rows) noexcept nogil:
    """Points `rows` to the channels from `first` on of the four corners."""
    cdef Py_ssize_t i
    for i in range(4):
        rows[i] = zeros if places[i] < 0 else image + places[i] * at.channels + first


cdef void gather_pixel(const Layout* at, const real* image, const real* zeros, const real* offsets,
                       const real* modulation, column* columns, Py_ssize_t group_step, Py_ssize_t pixel) noexcept nogil:
    """Writes the columns of one output pixel; all pointers but `columns` are to the start of its image."""
    cdef Py_ssize_t places[4]
    cdef real fractions[2]
    cdef real weights[4]
    cdef const real* rows[4]
    cdef Py_ssize_t tap, moved, first
    cdef Channels run
    for tap in range(at.taps):
        first = 0
        while first < at.channels:
            run = next_channels(at, first, at.channels)
            moved = run.offset_group * at.taps + tap
            find_corners(at, pixel, tap, offsets[2 * moved * at.pixels + pixel],
                         offsets[(2 * moved + 1) * at.pixels + pixel], places, fractions)
            corner_weights(fractions, <real>1 if modulation == NULL else modulation[moved * at.pixels + pixel], weights)
            corner_rows(at, image, zeros, places, first, rows)
            blend(rows[0], rows[1], rows[2], rows[3], weights,
                  columns + run.group * group_step + tap * at.group_channels + first - run.group * at.group_channels,
                  run.count)
            first += run.count


cdef void scatter_pixel(const Layout* at, const real* image, const real* zeros, const real* offsets,
                        const real* modulation, column* columns, Py_ssize_t group_step, Py_ssize_t pixel,
                        Py_ssize_t first, Py_ssize_t stop, real* to_image, real* to_offsets,
                        real* to_modulation) noexcept nogil:
    """The gradients of one output pixel for the channels from `first` to `stop`; see `scatter`."""
    cdef Py_ssize_t places[4]
    cdef real fractions[2]
    cdef real weights[4]
    cdef real dots[4]
    cdef const real* rows[4]
    cdef Py_ssize_t tap, moved, i, start = first
    cdef real scale, below, right
    cdef column* gradient
    cdef Channels run
    for tap in range(at.taps):
        first = start
        while first < stop:
            run = next_channels(at, first, stop)
            moved = run.offset_group * at.taps + tap
            find_corners(at, pixel, tap, offsets[2 * moved * at.pixels + pixel],
                         offsets[(2 * moved + 1) * at.pixels + pixel], places, fractions)
            scale = <real>1 if modulation == NULL else modulation[moved * at.pixels + pixel]
            corner_weights(fractions, scale, weights)
            corner_rows(at, image, zeros, places, first, rows)
            gradient = (columns + run.group * group_step + tap * at.group_channels + first
                        - run.group * at.group_channels)
            if to_offsets != NULL:
                dot_products(gradient, rows[0], rows[1], rows[2], rows[3], dots, run.count)
                below, right = fractions[0], fractions[1]
                to_offsets[2 * moved * at.pixels + pixel] += scale * (
                    (1 - right) * (dots[2] - dots[0]) + right * (dots[3] - dots[1]))
                to_offsets[(2 * moved + 1) * at.pixels + pixel] += scale * (
                    (1 - below) * (dots[1] - dots[0]) + below * (dots[3] - dots[2]))
                if to_modulation != NULL:
                    to_modulation[moved * at.pixels + pixel] += (
                        (1 - below) * ((1 - right) * dots[0] + right * dots[1])
                        + below * ((1 - right) * dots[2] + right * dots[3]))
            if to_image != NULL:
                for i in range(4):
                    if places[i] >= 0:
                        add_scaled(to_image + places[i] * at.channels + first, gradient, weights[i], run.count)
            blend(rows[0], rows[1], rows[2], rows[3], weights, gradient, run.count)
            first += run.count


def gather(real[:, :, :, ::1] features, real[:, :, :, ::1] offsets, real[:, :, :, ::1] modulation,
           column[:, :, ::1] columns, Py_ssize_t start, tuple kernel, tuple stride, tuple padding, tuple dilation,
           int threads):
    """Fills `columns` [G,n,K·C/G] with the modulated samples of the n pixels from `start` on.

    `features` are [B,H,W,C], `offsets` [B,2·O·K,H',W'], `modulation` [B,O·K,H',W'] or None.
    """
    cdef Layout at = describe(
        (<object>features).shape, (<object>offsets).shape, columns.shape[0], kernel, stride, padding, dilation)
    cdef Py_ssize_t count = columns.shape[1], width = columns.shape[2], group_step = count * width
    cdef Py_ssize_t image_step = features.shape[1] * features.shape[2] * features.shape[3]
    cdef Py_ssize_t offset_step = offsets.shape[1] * at.pixels, n, image
    cdef real* images = &features[0, 0, 0, 0]
    cdef real* moves = &offsets[0, 0, 0, 0]
    cdef real* scales = NULL if modulation is None else &modulation[0, 0, 0, 0]
    cdef column* out = &columns[0, 0, 0]
    cdef real* zeros = <real*>calloc(at.channels, sizeof(real))
    if zeros == NULL:
        raise MemoryError
    for n in prange(count, nogil=True, num_threads=threads, schedule="static"):
        image = (start + n) // at.pixels
        gather_pixel(&at, images + image * image_step, zeros, moves + image * offset_step,
                     NULL if scales == NULL else scales + image * (offset_step // 2), out + n * width, group_step,
                     (start + n) % at.pixels)
    free(zeros)


def scatter(real[:, :, :, ::1] features, real[:, :, :, ::1] offsets, real[:, :, :, ::1] modulation,
            column[:, :, ::1] columns, Py_ssize_t start, tuple kernel, tuple stride, tuple padding, tuple dilation,
            int threads, Py_ssize_t blocks, real[:, :, :, ::1] to_features, real[:, :, :, :, ::1] to_offsets,
            real[:, :, :, :, ::1] to_modulation):
    """Replaces gradients in `columns` by the columns themselves, and adds the gradients to the `to_` arrays.

    The first arguments are as in `gather`. The channels are cut into T = `blocks`, and one thread at a time works on a
    block of an image, pixel after pixel, so that no race can change the order of a sum. `to_features` is [B,H,W,C];
    `to_offsets` [T,B,2·O·K,H',W'] and `to_modulation` [T,B,O·K,H',W'] are left to be summed over T. Each may be None,
    but `to_modulation` is only filled beside `to_offsets`.
    """
    cdef Layout at = describe(
        (<object>features).shape, (<object>offsets).shape, columns.shape[0], kernel, stride, padding, dilation)
    cdef Py_ssize_t count = columns.shape[1], width = columns.shape[2], group_step = count * width
    cdef Py_ssize_t image_step = features.shape[1] * features.shape[2] * features.shape[3]
    cdef Py_ssize_t offset_step = offsets.shape[1] * at.pixels, batch = features.shape[0]
    cdef Py_ssize_t first_image = start // at.pixels, last_image = (start + count - 1) // at.pixels
    cdef Py_ssize_t task, n, image, block, place
    cdef real* images = &features[0, 0, 0, 0]
    cdef real* moves = &offsets[0, 0, 0, 0]
    cdef real* scales = NULL if modulation is None else &modulation[0, 0, 0, 0]
    cdef column* out = &columns[0, 0, 0]
    cdef real* to_images = NULL if to_features is None else &to_features[0, 0, 0, 0]
    cdef real* to_moves = NULL if to_offsets is None else &to_offsets[0, 0, 0, 0, 0]
    cdef real* to_scales = NULL if to_modulation is None else &to_modulation[0, 0, 0, 0, 0]
    cdef real* zeros = <real*>calloc(at.channels, sizeof(real))
    if zeros == NULL:
        raise MemoryError
    for task in prange((last_image - first_image + 1) * blocks, nogil=True, num_threads=threads, schedule="static"):
        image = first_image + task // blocks
        block = task % blocks
        place = block * batch + image
        for n in range(max(0, image * at.pixels - start), min(count, (image + 1) * at.pixels - start)):
            scatter_pixel(&at, images + image * image_step, zeros, moves + image * offset_step,
                          NULL if scales == NULL else scales + image * (offset_step // 2), out + n * width, group_step,
                          start + n - image * at.pixels, block * at.channels // blocks,
                          (block + 1) * at.channels // blocks,
                          NULL if to_images == NULL else to_images + image * image_step,
                          NULL if to_moves == NULL else to_moves + place * offset_step,
                          NULL if to_scales == NULL else to_scales + place * (offset_step // 2))
    free(zeros)
