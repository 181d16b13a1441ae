# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The inner loops of evaluation: reading compressed masks, their overlaps, matching tracks.

`rle.py` and `ytvis_eval.py` call them, and do the same in Python where this is not compiled. Nothing checks shapes here.
"""

import numpy as np
from cpython.bytes cimport PyBytes_AsStringAndSize
from cpython.number cimport PyNumber_Index
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef int LONGEST_NUMBER = 7  # characters, of five bits each, of the longest run that has a place in 32 bits
cdef uint64_t MOST_PIXELS = 2**32 - 1


cdef Py_ssize_t text_of(object counts, const char** text) except -1:
    """Points `text` to the characters of str or bytes and gives their number."""
    cdef Py_ssize_t length
    if isinstance(counts, bytes):
        PyBytes_AsStringAndSize(counts, <char**>text, &length)
    else:
        text[0] = PyUnicode_AsUTF8AndSize(counts, &length)
    return length


cdef Py_ssize_t read_edges(const char* text, Py_ssize_t length, int64_t pixels, uint32_t* edges,
                           int64_t* area) noexcept nogil:
    """Writes where each run ends, and the sum of every second run to `area`; gives the number of runs.

    `area` is -1 if the text is not whole or its runs do not fill the mask's pixels.
    """
    cdef Py_ssize_t place = 0, count = 0
    cdef int64_t end = 0, run, older = 0, old = 0, filled = 0
    cdef unsigned int code
    cdef int shift
    area[0] = -1
    while place < length:
        code = <unsigned int><unsigned char>text[place] - 48
        place += 1
        run = code & 0x1F
        shift = 5
        while code & 0x20:
            if code > 63 or place == length or shift == 5 * LONGEST_NUMBER:
                return count
            code = <unsigned int><unsigned char>text[place] - 48
            place += 1
            run |= <int64_t>(code & 0x1F) << shift
            shift += 5
        if code > 31:
            return count
        run -= <int64_t>(code & 0x10) << (shift - 4)  # the sign
        if count > 2:  # from the fourth on, the difference to the one before the last
            run += older
        older, old = old, run
        end += run
        if run < 0 or end > pixels:
            return count
        if count & 1:
            filled += run
        edges[count] = <uint32_t>end
        count += 1
    if end == pixels:
        area[0] = filled
    return count


def read_masks(list masks):
    """Areas, sizes, edges and starts of compressed masks (None: no mask) as `rle.Tubes` holds them; an area of -1 if
    the counts are wrong."""
    cdef Py_ssize_t number = len(masks), place, length, total = 0
    cdef const char* text
    cdef uint32_t height, width
    cdef uint64_t pixels
    for mask in masks:
        if mask is not None:
            total += len(mask["counts"])
    edges, starts = np.empty(total + 1, np.uint32), np.zeros(number + 1, np.int64)
    areas, sizes = np.zeros(number, np.int64), np.zeros(number, np.int64)
    cdef uint32_t[::1] to_edges = edges
    cdef int64_t[::1] to_starts = starts, to_areas = areas, to_sizes = sizes
    for place in range(number):
        mask = masks[place]
        to_starts[place + 1] = to_starts[place]
        if mask is not None:
            size = mask["size"]
            height, width = PyNumber_Index(size[0]), PyNumber_Index(size[1])
            length = text_of(mask["counts"], &text)
            to_sizes[place] = (<int64_t>height << 32) + width
            pixels = <uint64_t>height * width
            if pixels > MOST_PIXELS:
                to_areas[place] = -1
                continue
            to_starts[place + 1] += read_edges(text, length, pixels, &to_edges[to_starts[place]], &to_areas[place])
    return areas, sizes, edges, starts


cdef int64_t shared_pixels(const uint32_t* a, Py_ssize_t a_count, const uint32_t* b, Py_ssize_t b_count) noexcept nogil:
    """Pixels in both of two masks, each given by its edges: it covers those from the first to the second, and so on."""
    cdef Py_ssize_t i = 0, j = 0
    cdef int64_t total = 0
    cdef uint32_t start, end
    while i + 1 < a_count and j + 1 < b_count:
        start, end = max(a[i], b[j]), min(a[i + 1], b[j + 1])
        if end > start:
            total += end - start
        if a[i + 1] < b[j + 1]:
            i += 2
        else:
            j += 2
    return total


cdef struct Tubes:
    Py_ssize_t number
    const int64_t* offsets
    const int64_t* areas
    const int64_t* sizes
    const uint32_t* edges
    const int64_t* starts


cdef Tubes point_into(tuple arrays):
    """Pointers into the arrays, which must be kept."""
    cdef int64_t[::1] offsets, areas, sizes, starts
    cdef uint32_t[::1] edges
    cdef Tubes tubes
    offsets, areas, sizes, edges, starts = arrays
    tubes.number = offsets.shape[0] - 1
    tubes.offsets, tubes.areas, tubes.sizes = &offsets[0], &areas[0], &sizes[0]
    tubes.edges, tubes.starts = &edges[0], &starts[0]
    return tubes


def measure_overlaps(tuple firsts, tuple seconds, double[:, :, ::1] intersection, double[:, :, ::1] union):
    """Fills both [D,G,frames], which hold zeros, as `rle.frame_overlaps` says.

    The tubes are given as offsets, areas, sizes, edges and starts, of which none is empty.
    """
    cdef Tubes a = point_into(firsts), b = point_into(seconds)
    cdef Py_ssize_t d, g, t, i, j
    cdef int64_t shared
    for d in range(a.number):
        for g in range(b.number):
            for t in range(min(a.offsets[d + 1] - a.offsets[d], b.offsets[g + 1] - b.offsets[g])):
                i, j = a.offsets[d] + t, b.offsets[g] + t
                if a.sizes[i] != b.sizes[j] and a.sizes[i] and b.sizes[j]:
                    continue
                shared = shared_pixels(a.edges + a.starts[i], a.starts[i + 1] - a.starts[i],
                                       b.edges + b.starts[j], b.starts[j + 1] - b.starts[j])
                intersection[d, g, t] = shared
                union[d, g, t] = a.areas[i] + b.areas[j] - shared


def match(double[:, ::1] ious, uint8_t[::1] is_crowd, uint8_t[:, ::1] truth_ignored, double[::1] least_ious,
          int64_t[:, :, ::1] matched):
    """Fills `matched` [A,T,D] as `ytvis_eval.match_tracks` says; `least_ious` [T] are what a match must reach."""
    cdef Py_ssize_t a, t, d, g, best
    cdef uint8_t[::1] is_taken = np.empty(ious.shape[1], np.uint8)
    for a in range(matched.shape[0]):
        for t in range(matched.shape[1]):
            is_taken[:] = 0
            for d in range(matched.shape[2]):
                best = -1
                for g in range(ious.shape[1]):
                    if ious[d, g] < least_ious[t] or (is_taken[g] and not is_crowd[g]):
                        continue
                    if (best < 0 or truth_ignored[a, g] < truth_ignored[a, best]
                            or (truth_ignored[a, g] == truth_ignored[a, best] and ious[d, g] >= ious[d, best])):
                        best = g
                matched[a, t, d] = best
                if best >= 0:
                    is_taken[best] = 1
