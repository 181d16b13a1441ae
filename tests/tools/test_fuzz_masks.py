from tools.fuzz_masks import Fuzzer


def test_a_few_hundred_random_masks_end_as_they_should():
    fuzzer = Fuzzer(seed=1)
    for _ in range(60):
        for kind in (fuzzer.polygons, fuzzer.runs, fuzzer.text, fuzzer.encoded, fuzzer.tracks, fuzzer.arrays):
            kind()
    assert min(fuzzer.counts["good"], fuzzer.counts["refused"]) > 60
