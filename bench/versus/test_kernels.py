"""The parts of kernels.py and shape.py that need no machine: python3 -m unittest discover -s bench/versus"""

import io
import json
import os
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import kernels
import shape


def cell(form, measure, ours, theirs, threads=1, model="llama"):
    return {"model": model, "format": form, "threads": threads, "measure": measure, "ours": ours, "theirs": theirs}


class Cells(unittest.TestCase):
    def test_patterns_choose(self):
        def wanted(patterns):
            return kernels.wanted(patterns.split(","), "llama", "Q4_1", 2)
        self.assertEqual(wanted("*"), [32, 128, 512, "decode"])
        self.assertEqual(wanted("*/2/512,llama/*/decode"), [512, "decode"])
        self.assertEqual(wanted("*/Q4_0/*,*/1/*"), [])

    def test_the_first_prompt_counts_only_where_it_was_asked_for(self):
        said = json.dumps([{"n_prompt": 32, "n_gen": 0, "samples_ts": [1.0]}, {"n_prompt": 32, "n_gen": 0, "samples_ts": [3.0]},
                           {"n_prompt": 0, "n_gen": 8, "samples_ts": [2.0]}])
        self.assertEqual(kernels.their_rates(said, [32, "decode"], True), {32: 3.0, "decode": 2.0})
        with self.assertRaisesRegex(kernels.run.Failed, "512"):
            kernels.their_rates(said, [512], False)

    def test_llama_bench_is_asked_for_what_is_wanted(self):
        class Options:
            decode, no_warm_up = 16, False
        command = kernels.their_command(Options, "bench", "file", 2, [32, 512])
        self.assertEqual(command[-4:], ["-p", "32,512", "-n", "0"])
        Options.no_warm_up = True
        command = kernels.their_command(Options, "bench", "file", 2, ["decode"])
        self.assertEqual(command[-5:], ["--no-warmup", "-p", "32", "-n", "16"])


class Verdicts(unittest.TestCase):
    def test_targets_are_of_the_longest_prompt(self):
        for form, measure, want in [("Q4_1", "512", 3.0), ("Q8_0", "512", 2.5), ("Q4_1", "128", 0.98), ("F16", "512", 0.98),
                                    ("Q4_1", "decode", 0.98)]:
            self.assertEqual(kernels.target(form, measure), want)

    def test_cells_are_judged_by_their_medians(self):
        rows = kernels.summarise([cell("Q4_1", "512", [30, 31, 10], [10, 10, 10]), cell("Q4_1", "512", [29, 29, 99], [10, 10, 10]),
                                  cell("F16", "32", [97], [100])])["rows"]
        self.assertEqual([row["verdict"] for row in rows], ["met", "missed", "missed"])
        self.assertAlmostEqual(rows[0]["ratio"], 3.0)

    def test_decoding_is_a_geometric_mean(self):
        mean = kernels.summarise([cell("F16", "decode", [2], [1]), cell("F16", "decode", [1], [2], 2), cell("F16", "512", [9], [1])])
        self.assertAlmostEqual(mean["decode"]["ratio"], 1.0)
        self.assertEqual((mean["decode"]["count"], mean["decode"]["verdict"]), (2, "missed"))
        self.assertEqual(kernels.summarise([cell("F16", "512", [9], [1])])["decode"]["verdict"], "not measured")


class Page(unittest.TestCase):
    def test_what_is_lost_is_shown(self):
        cells = [cell("Q4_1", "512", [40], [10]), cell("Q4_1", "32", [9], [10]), cell("F16", "decode", [12], [10], 2)]
        result = {"date": "2026-01-01", "forced": True, "load_before": 0, "load_after": 0, "decode_tokens": 8, "notes": ["a note"],
                  "rounds": {"real": 5, "generated": 1}, "commands": {"ours": "drive", "theirs": "bench"},
                  "versions": dict.fromkeys(["runner", "our llama.cpp", "our kernels", "llama.cpp", "their kernels"], "x"),
                  "machine": {"cpu": "c", "cores": 2, "memory_gib": 1, "system": "s", "features": []}}
        page = kernels.markdown(result, kernels.summarise(cells), "raw")
        self.assertIn("| llama | Q4_1 | 1 | **0.90** (9 / 10) |  | 4.00 (40 / 10) | ≥ 3.00 |  |", page)
        self.assertIn("| llama | F16 | 2 |  |  |  | ≥ 0.98 | 1.20 (12 / 10) |", page)
        self.assertIn("- llama Q4_1, threads: 1, 32: 0.900, target 0.98: missed", page)
        self.assertIn("Met: 2 of 3 cells. Decoding, geometric mean of 1: 1.200, target 1.15: met.", page)
        self.assertIn("Fewer than 5 rounds", page)
        self.assertIn("--force", page)


class Shape(unittest.TestCase):
    SMALL = {"layers": 2, "width": 64, "inner": 96, "heads": 4, "cache_heads": 2, "context": 32}

    def tokeniser(self):
        """The beginning of a file with values of all kinds."""
        tokens = shape.string("tokenizer.ggml.tokens") + struct.pack("<IIQ", shape.ARRAY, shape.STRING, 3) + b"".join(
            map(shape.string, ["a", "bc", ""]))
        kinds = shape.string("tokenizer.ggml.token_type") + struct.pack("<IIQ3i", shape.ARRAY, 5, 3, 1, 1, 1)
        values = [shape.text("general.name", "other"), tokens, shape.number("llama.block_count", 9), kinds]
        return b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + b"".join(values), [tokens, kinds]

    def test_only_the_tokeniser_is_taken(self):
        whole, kept = self.tokeniser()
        self.assertEqual(shape.tokeniser_values(io.BytesIO(whole)), (kept, 3))
        with self.assertRaises(ValueError):
            shape.tokeniser_values(io.BytesIO(b"GGML" + whole[4:]))

    def test_the_file_is_as_long_as_its_tensors(self):
        with tempfile.TemporaryDirectory() as folder:
            other, made = os.path.join(folder, "other"), os.path.join(folder, "made")
            with open(other, "wb") as file:
                file.write(self.tokeniser()[0])
            shape.write(made, other, self.SMALL)
            with open(made, "rb") as file:
                data = file.read()
        tensors = list(shape.llama_tensors(self.SMALL, 3))
        self.assertEqual(len(tensors), 2 + 9 * 2)
        _, _, count, values = struct.unpack("<4sIQQ", data[:24])
        self.assertEqual((count, values), (len(tensors), 3 + 9 + 2))
        name, dimensions, kind = tensors[-1]
        at = data.index(shape.string(name)) + len(shape.string(name)) + 4 + 8 * len(dimensions)
        self.assertEqual(struct.unpack("<I", data[at:at + 4])[0], kind)
        (offset,) = struct.unpack("<Q", data[at + 4:at + 12])
        start = at + 12 + -(at + 12) % shape.ALIGNMENT
        self.assertEqual(len(data) - start, offset + shape.padded(shape.size(dimensions, kind)))
        self.assertEqual(struct.unpack("<f", data[-256:-252])[0], 1.0)

    def test_weights_are_small_halves(self):
        for (half,) in struct.iter_unpack("<e", shape.noise(4096)):
            self.assertTrue(1 / 64 <= abs(half) < 1 / 32, half)

    def test_the_shape_has_0_8_thousand_million_weights(self):
        self.assertAlmostEqual(shape.weights(shape.LLAMA, 49152) / 1e9, 0.8, delta=0.02)


if __name__ == "__main__":
    unittest.main()
