# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The inner loops of scoring: reading compressed masks, their overlaps, matching tracks.

`ytvis.masks` and `ytvis.score.ap` call them, and do the same in Python where this is not compiled. Whatever the
arguments hold, nothing outside their memory is read or written: masks are checked, shapes and offsets that do not fit
together raise ValueError.
"""

import numpy as np
from cpython.bytes cimport PyBytes_AsStringAndSize
from cpython.number cimport PyNumber_Index
from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef extern from "Python.h":
    bint PyLong_CheckExact(object number)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1
    bint PyUnicode_IS_ASCII(object text)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef int LONGEST_NUMBER = 6  # characters, of five bits each: pycocotools reads more of them wrongly


cdef Py_ssize_t text_of(object counts, const char** text) except -2:
    """Points `text` to the characters of ASCII str or bytes and gives their number, -1 for anything else."""
    cdef Py_ssize_t length
    if isinstance(counts, bytes):
        PyBytes_AsStringAndSize(counts, <char**>text, &length)
    elif isinstance(counts, str) and PyUnicode_IS_ASCII(counts):
        text[0] = PyUnicode_AsUTF8AndSize(counts, &length)
    else:
        return -1
    return length


cdef int64_t side_of(object size, Py_ssize_t axis, int64_t max_side) except -2:
    """A mask's height or width, -1 if it is not a whole number from 1 to `max_side`."""
    side = size[axis]
    if isinstance(side, (bool, np.bool_)):
        return -1
    try:
        side = PyNumber_Index(side)
    except TypeError:
        return -1
    return side if 1 <= side <= max_side else -1


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


def read_masks(list masks, int64_t max_side=2**16, int64_t max_pixels=2**27):
    """Areas, sizes, edges and starts of compressed masks (None: no mask) as `ytvis.masks.Tubes` holds them; an area of
    -1 for all that is no compressed mask within the limits, and for counts that are wrong."""
    cdef Py_ssize_t number = len(masks), place, length, total = 0
    cdef const char* text
    cdef int64_t height = -1, width = -1
    cdef bint is_pair
    last_size = None
    if not 0 < max_pixels < 2**31:
        raise ValueError("max_pixels must be under 2**31")
    known = []  # of each mask its size and counts, kept so that they are the same when they are read
    for mask in masks:
        if mask is None:
            known.append(None)
            continue
        try:
            size, counts = mask["size"], mask["counts"]
        except (TypeError, KeyError, IndexError):
            size = counts = None
        length = text_of(counts, &text)
        total += max(length, 0)
        known.append((size, counts))
    edges, starts = np.empty(total + 1, np.uint32), np.zeros(number + 1, np.int64)
    areas, sizes = np.zeros(number, np.int64), np.zeros(number, np.int64)
    cdef uint32_t[::1] to_edges = edges
    cdef int64_t[::1] to_starts = starts, to_areas = areas, to_sizes = sizes
    for place in range(number):
        to_starts[place + 1] = to_starts[place]
        item = known[place]
        if item is None:
            continue
        size, counts = item
        to_areas[place] = -1
        length = text_of(counts, &text)
        if size is not last_size:  # the masks of a file share the object
            is_pair = isinstance(size, (list, tuple, np.ndarray)) and len(size) == 2
            height = side_of(size, 0, max_side) if is_pair else -1
            width = side_of(size, 1, max_side) if is_pair else -1
            last_size = size
        if length < 0 or height < 0 or width < 0 or height * width > max_pixels:
            continue
        to_sizes[place] = (height << 32) + width
        to_starts[place + 1] += read_edges(text, length, height * width, &to_edges[to_starts[place]], &to_areas[place])
    return areas, sizes, edges, starts


def compress_runs(list runs, int64_t pixels):
    """Compressed counts of a mask, bytes; None unless `runs` are Python's integers from 0 whose sum is `pixels`.

    From the fourth on a run is stored as the difference to the one before the last; each number in five bits a
    character from the lowest, in as few characters as hold the sign too.
    """
    cdef bytearray counts = bytearray(LONGEST_NUMBER * len(runs))
    cdef char* text = counts
    cdef Py_ssize_t length = 0, place
    cdef int64_t run, number, rest = pixels, older = 0, old = 0
    cdef int overflow
    if not 0 <= pixels < 2**29:  # what numbers of LONGEST_NUMBER characters hold, with their sign
        return None
    for place in range(len(runs)):
        if not PyLong_CheckExact(runs[place]):
            return None
        run = PyLong_AsLongLongAndOverflow(runs[place], &overflow)
        if overflow or not 0 <= run <= rest:
            return None
        rest -= run
        number = run - older if place > 2 else run
        older, old = old, run
        while not -16 <= number < 16:
            text[length] = 48 + 32 + (number & 0x1F)
            length += 1
            number >>= 5
        text[length] = 48 + (number & 0x1F)
        length += 1
    return bytes(counts[:length]) if rest == 0 else None


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


cdef Tubes point_into(tuple arrays) except *:
    """Pointers into the arrays, which must be kept; ValueError unless they fit together."""
    cdef int64_t[::1] offsets, areas, sizes, starts
    cdef uint32_t[::1] edges
    cdef Tubes tubes
    offsets, areas, sizes, edges, starts = arrays
    if offsets.shape[0] < 1 or not edges.shape[0] or areas.shape[0] != sizes.shape[0] \
            or starts.shape[0] != areas.shape[0] + 1:
        raise ValueError("the arrays of tubes are not of one length")
    check_rising(offsets, areas.shape[0])
    check_rising(starts, edges.shape[0])
    tubes.number = offsets.shape[0] - 1
    tubes.offsets, tubes.areas, tubes.sizes = &offsets[0], &areas[0], &sizes[0]
    tubes.edges, tubes.starts = &edges[0], &starts[0]
    return tubes


cdef int check_rising(int64_t[::1] places, int64_t most) except -1:
    """ValueError unless `places` rise from 0 or more to no more than `most`."""
    cdef Py_ssize_t i
    cdef int64_t before = 0
    for i in range(places.shape[0]):
        if places[i] < before or places[i] > most:
            raise ValueError("the offsets of tubes do not fit their arrays")
        before = places[i]
    return 0


def measure_overlaps(tuple firsts, tuple seconds, double[:, :, ::1] intersection, double[:, :, ::1] union):
    """Fills both [D,G,frames], which hold zeros, as `ytvis.masks.frame_overlaps` says.

    The tubes are given as offsets, areas, sizes, edges and starts.
    """
    cdef Tubes a = point_into(firsts), b = point_into(seconds)
    cdef Py_ssize_t d, g, t, i, j
    cdef int64_t shared
    for d in range(3):
        if intersection.shape[d] != union.shape[d]:
            raise ValueError("intersection and union are not of one shape")
    if intersection.shape[0] != a.number or intersection.shape[1] != b.number:
        raise ValueError("intersection and union do not have a row for each pair of tracks")
    for d in range(a.number):
        for g in range(b.number):
            for t in range(min(a.offsets[d + 1] - a.offsets[d], b.offsets[g + 1] - b.offsets[g],
                               intersection.shape[2])):
                i, j = a.offsets[d] + t, b.offsets[g] + t
                if a.sizes[i] != b.sizes[j] and a.sizes[i] and b.sizes[j]:
                    continue
                shared = shared_pixels(a.edges + a.starts[i], a.starts[i + 1] - a.starts[i],
                                       b.edges + b.starts[j], b.starts[j + 1] - b.starts[j])
                intersection[d, g, t] = shared
                union[d, g, t] = a.areas[i] + b.areas[j] - shared


def match(double[:, ::1] ious, uint8_t[::1] is_crowd, uint8_t[:, ::1] truth_ignored, double[::1] least_ious,
          int64_t[:, :, ::1] matched):
    """Fills `matched` [A,T,D] as `ytvis.score.ap.match_tracks` says, of `ious` [D,G], `is_crowd` [G] and `truth_ignored`
    [A,G]; `least_ious` [T] are what a match must reach."""
    cdef Py_ssize_t a, t, d, g, best
    if matched.shape[0] != truth_ignored.shape[0] or matched.shape[1] != least_ious.shape[0] \
            or matched.shape[2] != ious.shape[0] or ious.shape[1] != is_crowd.shape[0] \
            or ious.shape[1] != truth_ignored.shape[1]:
        raise ValueError("the arrays of tracks to match are not of one shape")
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
