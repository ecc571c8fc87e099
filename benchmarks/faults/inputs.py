"""Mistakes of a new user, at every command: one clear line on standard error, exit code 2 or 3, nothing lost.

A case is a command line as it would be typed, its exit code, and words that its line has to hold. A small world lies
below a folder: drawn people, two encoders, embeddings, a gallery, tracks, and all of that in broken forms.
"""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.faults.data import as_a_user
from facenet.data.drawn.faces import draw
from facenet.data.preprocess import Preprocess
from facenet.data.sources.folder import scan_folder
from facenet.encoders import bundle
from facenet.encoders.bundle import Encoder
from facenet.encoders.embedding import embed_records
from facenet.evaluation.evaluate import calibrate
from facenet.gallery.gallery import Gallery
from facenet.models.build import build_model
from facenet.types import EmbeddingSet

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PATIENCE = 120  # seconds after which a case hangs


class Case(NamedTuple):
    """A command line, what it exits with, and what its one line says."""

    command: str
    arguments: str  # {names} stand for what lies in the world
    code: int
    says: str


class Outcome(NamedTuple):
    """What came of a case."""

    code: int
    errors: str  # standard error
    crash: str = ""  # the exception that nobody turned into an exit code
    changed: tuple[str, ...] = ()  # files written, changed or gone, but for the run folder


TRAIN = (
    "data=folder data.root={faces} sampler.batch_size=12 sampler.faces_per_identity=4 model.input_size=[32,32]"
    " model.embedding_dim=16 trainer.max_steps=1 trainer.val_check_interval=1 trainer.accelerator=cpu"
    " trainer.progress=false"
)
VERIFY = "encoder={encoder} data.root={faces} pairs={pairs}"
EMBED = "encoder={encoder} images={faces} out={new}"
SEARCH = "gallery={gallery} encoder={encoder} query={faces} far=0.1"
COMPARE = "encoder={encoder} a={a} b={b} far=0.1"
CLUSTER = "embeddings={embeddings} threshold=0.5"
COMPAT = "old={embeddings} new={others} pairs={pairs}"
DEGRADE = "encoder={encoder} data.root={faces} pairs={pairs} kinds=[jpeg] levels.jpeg=[50]"
EXPORT = "encoder={encoder} out={new}.onnx"
ALIGN = "images={faces} out={new}"
TRACKS = (
    "encoder={encoder} data.root={tracks} seeds=[0] device=cpu training.steps=1 training.identities=4"
    " training.tracks_each=2"
)
INDEX = "gallery={gallery}"
BASE = {
    "train": TRAIN,
    "verify": VERIFY,
    "embed": EMBED,
    "search": SEARCH,
    "compare": COMPARE,
    "cluster": CLUSTER,
    "compat": COMPAT,
    "degrade": DEGRADE,
    "export": EXPORT,
    "align": ALIGN,
    "tracks": TRACKS,
    "index": f"{INDEX} info=true",
    "report": "runs={new}",
    "summary": "model=small",
    "benchmark": "benchmark=gallery",
    "quickstart": "",
}


def _numbers(command: str, code: int, table: str) -> list[Case]:
    """One case for each ``option=value,value`` of a table, added to what the command is called with."""
    cases = []
    for line in table.split():
        option, values = line.split("=", 1)
        cases += [
            Case(command, f"{BASE[command]} {option}={value}", code, option.split(".")[-1])
            for value in values.split("|")
        ]
    return cases


EVERYWHERE = [
    *(Case(name, f"{line} nonsuch=1", 2, "'nonsuch'") for name, line in BASE.items()),
    *(
        Case(name, f"{line} {option}=many", 2, option)
        for name, option, line in (
            ("train", "trainer.max_steps", TRAIN),
            ("verify", "seed", VERIFY),
            ("embed", "batch_size", EMBED),
            ("search", "k", SEARCH),
            ("compare", "far", COMPARE),
            ("cluster", "neighbours", CLUSTER),
            ("compat", "steps", COMPAT),
            ("degrade", "far", DEGRADE),
            ("export", "batch_size", EXPORT),
            ("align", "size", ALIGN),
            ("tracks", "training.steps", TRACKS),
            ("index", "compact", BASE["index"]),
            ("summary", "model.embedding_dim", "model=small"),
            ("benchmark", "benchmark.kills", "benchmark=gallery"),
            ("quickstart", "gallery_people", ""),
        )
    ),
    *(Case(name, f"{line} hydra.run.dir={{closed}}/run", 3, "closed") for name, line in BASE.items()),
    *(Case(name, f"{line} hydra.run.dir={{file}}", 3, "file.txt") for name, line in BASE.items()),
    *(
        Case(name, "", 2, option)
        for name, option in (
            ("embed", "encoder"),
            ("search", "gallery"),
            ("index", "gallery"),
            ("compare", "encoder"),
            ("cluster", "embeddings"),
            ("compat", "old"),
            ("degrade", "encoder"),
            ("export", "encoder"),
            ("align", "images"),
            ("tracks", "encoder"),
            ("report", "runs"),
            ("verify", "encoder"),
        )
    ),
    *(
        Case(name, BASE[name].replace("{encoder}", f"{{{wrong}}}"), 3, says)
        for name in ("verify", "embed", "search", "compare", "degrade", "export", "tracks")
        for wrong, says in (
            ("missing", "no such"),
            ("empty", "encoder.json"),
            ("truncated", "truncated"),
            ("text", "text.txt"),
        )
    ),
    *(
        Case(name, f"{BASE[name]} device=gpux", 2, "gpux")
        for name in ("verify", "embed", "search", "compare", "degrade", "tracks")
    ),
    *(
        Case(name, BASE[name].replace("{faces}", f"{{{wrong}}}"), 3, says)
        for name in ("train", "verify", "embed", "degrade", "search")
        for wrong, says in (("missing", "missing"), ("empty", "empty"), ("text", "text.txt"))
    ),
    *(
        Case(name, BASE[name].replace("{embeddings}", f"{{{wrong}}}"), 3, says)
        for name in ("cluster", "compat")
        for wrong, says in (
            ("missing", "missing"),
            ("empty", "meta.json"),
            ("text", "text.txt"),
            ("cut", "vectors.npy"),
        )
    ),
    *(
        Case(name, BASE[name].replace("{pairs}", f"{{{wrong}}}"), 3, says)
        for name in ("verify", "degrade", "compat")
        for wrong, says in (
            ("missing", "missing"),
            ("nothing", "nothing.csv"),
            ("columns", "columns.csv"),
            ("strangers", ""),
            ("bytes", "bytes.csv"),
        )
    ),
    *(Case(name, BASE[name].replace("{new}", "{closed}/new"), 3, "closed") for name in ("embed", "export", "align")),
    *(Case(name, BASE[name].replace("{new}", "{file}"), 3, "file.txt") for name in ("embed", "align")),
]

OWN = [
    Case("train", "modle=small", 2, "did you mean 'model'"),
    Case("train", "model=smal", 2, "did you mean 'small'"),
    Case("train", "optim.lrr=0.1", 2, "did you mean 'lr'"),
    Case("train", "mining.miner=semihard", 2, "did you mean 'semi_hard'"),
    Case("train", "optim.schedule=cosin", 2, "did you mean 'cosine'"),
    Case("train", "loader.cache=rom", 2, "ram"),
    Case("train", "experiment=table33", 2, "did you mean 'table3'"),
    Case("train", "debug=over", 2, "overfit"),
    Case("train", "--config-name=trian", 2, "trian"),
    Case("train", "data=folder", 2, "data.root"),
    Case("train", "=", 2, ""),
    Case("train", "optim.lr", 2, "optim.lr"),
    Case("train", "data=[folder", 2, "data=[folder"),
    Case("embed", "encoder={encoder} images={missing}(1)é out={new}", 3, "missing(1)é: no such folder"),
    Case("embed", "encoder={encoder} images={missing}\udce9 out={new}", 2, "missing\\xe9: the argument is not UTF-8"),
    Case("train", f"{TRAIN} data.root={{one}}", 3, "people are too few"),
    Case("train", f"{TRAIN} sampler.batch_size=500", 3, "sampler.batch_size="),
    Case("train", f"{TRAIN} data.root={{half}}", 3, "data.max_bad_share"),
    Case("train", f"{TRAIN} data.root={{flat}}", 3, "no identity"),
    Case("train", f"{TRAIN} data.root={{closed}}", 3, "closed"),
    Case("train", f"{TRAIN} data=csv data.root={{missing}}.csv", 3, "no such file"),
    Case("train", f"{TRAIN} data=csv data.root={{columns}}", 3, "path, identity"),
    Case("train", f"{TRAIN} data=csv data.root={{faces}}", 3, "faces"),
    Case("train", f"{TRAIN} data=csv data.root={{outside}}", 3, "leads outside"),
    Case("train", f"{TRAIN} data=lfw", 3, "pairsDevTest.txt"),
    Case("train", f"{TRAIN} data.pairs={{strangers}}", 3, "strangers.csv"),
    Case("train", f"{TRAIN} data.pairs={{columns}}", 3, "columns.csv"),
    Case("train", f"{TRAIN} init={{truncated}}", 3, "truncated"),
    Case("train", f"{TRAIN} init={{missing}}", 3, "missing"),
    Case("train", f"{TRAIN} init={{encoder}} model.embedding_dim=32", 2, "init"),
    Case("train", f"{TRAIN} harmonic.old={{missing}}", 3, "missing"),
    Case("train", f"{TRAIN} harmonic.old={{truncated}}", 3, "truncated"),
    Case("train", f"{TRAIN} resume=yes", 2, "did you mean|known: auto"),
    Case("train", f"{TRAIN} fold=1", 2, "fold"),
    Case("train", f"{TRAIN} trainer.accelerator=gpux", 2, "gpux"),
    Case("train", f"{TRAIN} trainer.strategy=dpp", 2, "dpp"),
    Case("train", f"{TRAIN} trainer.precision=33", 2, "precision"),
    Case("train", f"{TRAIN} model.input_size=[32]", 2, "size"),
    Case("train", f"{TRAIN} model.input_size=[8,8]", 2, "size"),
    Case("train", f"{TRAIN} preprocess.std=[0,1,1]", 2, "std"),
    Case("train", f"{TRAIN} preprocess.mean=[0.5]", 2, "mean"),
    Case("train", f"{TRAIN} trainer.val_check_interval=0", 2, "val_check_interval"),
    Case("train", f"{TRAIN} loader.cache=disk loader.cache_dir={{closed}}/cache", 3, "closed"),
    Case("train", f"{TRAIN} loader.cache=disk loader.cache_dir={{file}}", 3, "file.txt"),
    Case("train", f"{TRAIN} data=synthetic data.cache_dir={{file}} data.synthetic.train_identities=8", 3, "file.txt"),
    Case("train", f"{TRAIN} data=synthetic data.synthetic.size=8", 2, "size"),
    Case("train", f"{TRAIN} data=synthetic data.synthetic.train_images=[5,1]", 2, "images"),
    Case("train", f"{TRAIN} data=synthetic data.synthetic.train_images=[5]", 2, "train_images"),
    Case("verify", f"{VERIFY} embeddings={{embeddings}}", 2, "encoder=DIR, or embeddings=DIR"),
    Case("verify", "embeddings={embeddings} quantise=int9", 2, "int8"),
    Case("verify", "embeddings={cut}", 3, "vectors.npy"),
    Case("verify", "embeddings={embeddings} fars=[0]", 2, "far"),
    Case("verify", "embeddings={embeddings} fars=[nan]", 2, "far"),
    Case("verify", "embeddings={embeddings} memory_gb=0", 2, "memory_gb"),
    Case("verify", "embeddings={embeddings} memory_gb=-1", 2, "memory_gb"),
    Case("verify", "embeddings={embeddings} identification=true protocol.gallery_faces=0", 2, "gallery_faces"),
    Case("verify", "embeddings={embeddings} identification=true protocol.strangers=2", 2, "strangers"),
    Case("verify", f"{VERIFY} train_embeddings={{others}}", 3, "another encoder|encoder"),
    Case("verify", f"{VERIFY} grid=3", 2, "400"),
    Case("verify", f"{VERIFY} detector=none2", 2, "detector"),
    Case("embed", EMBED.replace("{faces}", "{broken}"), 3, "broken.jpg"),
    Case("embed", "encoder={encoder} images= out={new}", 2, "not given: images=..."),
    Case("embed", f"{EMBED} detector=yunett", 2, "yunet"),
    Case("search", f"{SEARCH} gallery={{missing}}", 3, "missing"),
    Case("search", f"{SEARCH} gallery={{empty}}", 3, "empty"),
    Case("search", f"{SEARCH} gallery={{text}}", 3, "text.txt"),
    Case("search", f"{SEARCH} gallery={{damaged}}", 3, "damaged"),
    Case("search", f"{SEARCH} encoder={{other}} threshold=1", 3, "encoder"),
    Case("search", f"{SEARCH} query={{missing}}", 3, "no id in"),
    Case("search", f"{SEARCH} query={{broken}}", 3, "broken.jpg"),
    Case("search", f"{SEARCH} query={{wide}}", 3, "wide.npy|dimension|width"),
    Case("search", f"{SEARCH} query={{pickled}}", 3, "pickled.npy"),
    Case("search", f"{SEARCH} far=0.00001", 3, "no threshold"),
    Case("search", f"{SEARCH} within=true by_identity=true", 2, "by_identity"),
    Case("search", f"{SEARCH} interactive=true", 2, "query="),
    Case("search", f"{SEARCH} where=camera", 2, "where"),
    Case("search", f"{SEARCH} where.camera=[1]", 2, "where"),
    Case("index", "gallery={new} add={missing}", 3, "missing"),
    Case("index", "gallery={new} add={cut}", 3, "vectors.npy"),
    Case("index", "gallery={new} add={embeddings} encoder={other}", 3, "another encoder"),
    Case("index", f"{INDEX} add={{others}}", 3, "encoder"),
    Case("index", f"{INDEX} add={{embeddings}}", 3, "in the gallery already"),
    Case("index", f"{INDEX} add={{embeddings}} on_duplicate=repace", 2, "did you mean 'replace'"),
    Case("index", f"{INDEX} add={{embeddings}} on_duplicate=skip metadata={{missing}}", 3, "missing"),
    Case("index", f"{INDEX} add={{embeddings}} on_duplicate=skip metadata={{columns}}", 3, "columns.csv"),
    Case("index", f"{INDEX} remove=nobody", 3, "nobody"),
    Case("index", f"{INDEX} remove=nobody by=name", 2, "by"),
    Case("index", f"{INDEX} kind=ivf", 2, "ivf_sq8"),
    Case("index", f"{INDEX} factory=IVF", 2, "IVF"),
    Case("index", f"{INDEX} recall_target=0", 2, "recall_target"),
    Case("index", f"{INDEX} recall_target=nan", 2, "recall_target"),
    Case("index", f"{INDEX} export=nyp out={{new}}", 2, "did you mean 'npy'"),
    Case("index", f"{INDEX} export=npy", 2, "go together"),
    Case("index", f"{INDEX} export=npy out={{closed}}/new", 3, "closed"),
    Case("index", f"{INDEX} export=npy out={{file}}", 3, "file.txt"),
    Case("index", f"{INDEX} backfill={{others}}", 2, "encoder=DIR"),
    Case("index", f"{INDEX} backfill={{others}} encoder={{other}}", 3, "compatible|list"),
    Case("index", "gallery={missing} info=true", 3, "missing"),
    Case("index", "gallery={damaged} info=true", 3, "damaged"),
    Case("index", "gallery={text} info=true", 3, "text.txt"),
    Case("index", "gallery={closed}/g add={embeddings}", 3, "closed"),
    Case("index", "gallery={file} add={embeddings}", 3, "file.txt"),
    Case("compare", COMPARE.replace("{a}", "{broken}"), 3, "broken.jpg"),
    Case("compare", COMPARE.replace("{a}", "{missing}"), 3, "missing"),
    Case("compare", COMPARE.replace("{a}", "{faces}"), 3, "faces"),
    Case("compare", COMPARE.replace("{a}", "{pipe}"), 3, "pipe.jpg"),
    Case("compare", f"{COMPARE} detector=yunett", 2, "detector"),
    Case("cluster", "embeddings={embeddings}", 2, "threshold"),
    Case("cluster", f"{CLUSTER} encoder={{other}}", 3, "another encoder"),
    Case("cluster", f"{CLUSTER} method=linkge", 2, "did you mean"),
    Case("cluster", f"{CLUSTER} known={{embeddings}}", 2, "go together"),
    Case("cluster", f"{CLUSTER} known={{others}} clusters={{columns}}", 3, "another encoder"),
    Case("cluster", "embeddings={embeddings} sample={others}", 3, "another encoder"),
    Case("cluster", "embeddings={embeddings} far=0.1", 2, "encoder|sample"),
    Case("cluster", f"{CLUSTER} far=0.1", 2, "threshold|far"),
    Case("compat", f"{COMPAT} encoder={{encoder}}", 3, "embed"),
    Case("compat", f"{COMPAT} fit_old={{embeddings}}", 2, "go together"),
    Case("compat", f"{COMPAT} gate.metric=acuracy", 2, "did you mean 'accuracy'"),
    Case("compat", f"{COMPAT} reference={{missing}}", 3, "missing"),
    Case("degrade", f"{DEGRADE} kinds=[jpg]", 2, "did you mean 'jpeg'"),
    Case("degrade", f"{DEGRADE} levels.jpeg=[]", 2, "empty list"),
    Case("degrade", f"{DEGRADE} sides=both2", 2, "sides"),
    Case("export", f"{EXPORT} int8={{new}}8.onnx", 2, "images="),
    Case("export", f"{EXPORT} images={{faces}} int8={{new}}.onnx", 2, "same file"),
    Case("export", f"{EXPORT} images={{missing}} int8={{new}}8.onnx", 3, "missing"),
    Case("export", "encoder={encoder} out={faces}", 3, "faces"),
    Case("align", "images={missing} out={new}", 3, "missing"),
    Case("align", "images={empty} out={new}", 3, "empty"),
    Case("align", f"{ALIGN} pick=larges", 2, "largest"),
    Case("align", f"{ALIGN} template=arkface", 2, "arcface"),
    Case("align", f"{ALIGN} detector=none", 2, "detector"),
    Case("align", f"{ALIGN} format=gif", 2, "format"),
    Case("align", "images={faces} out={faces}", 3, "another folder"),
    Case("tracks", f"{TRACKS} data.root={{missing}}", 3, "missing"),
    Case("tracks", f"{TRACKS} data.root={{empty}}", 3, "empty"),
    Case("tracks", f"{TRACKS} data.root={{faces}}", 3, "no track"),
    Case("tracks", f"{TRACKS} track_pool={{missing}}", 2, "train=false"),
    Case("tracks", f"{TRACKS} train=false track_pool={{missing}}", 3, "missing"),
    Case("tracks", f"{TRACKS} train=false track_pool={{encoder}}", 3, "encoder"),
    Case("tracks", f"{TRACKS} train=false data.pairs={{columns}}", 3, "columns.csv"),
    Case("tracks", f"{TRACKS} train=false data.pairs={{pairs}}", 3, "tracks"),
    Case("tracks", f"{TRACKS} data.splits={{columns}}", 3, "identity,split"),
    Case("tracks", f"{TRACKS} training.miner=al", 2, "all_valid"),
    Case("tracks", f"{TRACKS} pool.features=positiv", 2, "positive"),
    Case("tracks", f"{TRACKS} seeds=[]", 2, "seeds"),
    Case("report", "runs={missing}", 3, "missing"),
    Case("report", "runs={empty}", 3, "not a run folder"),
    Case("report", "runs={text}", 3, "text.txt"),
    Case("report", "runs=[]", 2, "runs"),
    Case("report", "runs=3", 3, "3"),
    Case("report", "runs={run} encoder={missing}", 3, "missing"),
    Case("report", "run={empty}", 2, "did you mean 'runs'"),
    Case("summary", "model=smal", 2, "did you mean 'small'"),
    Case("summary", "model.name=smal", 2, "did you mean 'small'"),
    Case("summary", "model.norm=bacth", 2, "did you mean 'batch'"),
    Case("summary", "model.input_size=[0,0]", 2, "size"),
    Case("summary", "model.pool=atention", 2, "attention"),
    Case("summary", "model.attention.after=nowhere", 2, "after"),
    Case("summary", "model.attention.after=incep model.attention.heads=0", 2, "heads|after"),
    Case("benchmark", "benchmark=minning", 2, "did you mean 'mining'"),
    Case("benchmark", "benchmark=mining benchmark.sizes=[0]", 2, "sizes"),
    Case("benchmark", "benchmark=mining benchmark.size=[8]", 2, "did you mean 'sizes'"),
    Case("benchmark", "benchmark=loader benchmark.root={missing}", 3, "missing"),
    Case("benchmark", "benchmark=training benchmark.nets=[nn9]", 2, "nn9"),
    Case("benchmark", "benchmark=photos benchmark.root={missing}", 3, "missing"),
    Case("benchmark", "benchmark.name=mine", 2, "did you mean 'mining'"),
    Case("quickstart", "data=folder", 2, "synthetic"),
    Case("quickstart", "gallery_people=0", 2, "gallery_people"),
    Case("quickstart", "gallery_faces=0", 2, "gallery_faces"),
    Case("quickstart", "seed=-1", 2, "seed"),
    Case("quickstart", "far=0", 2, "far"),
]

RANGES = [
    *_numbers(
        "train",
        2,
        """
        optim.lr=0|-1|nan|inf optim.weight_decay=-1|nan optim.clip_norm=0|-1|nan optim.warmup_steps=-1
        optim.accumulate=0|-1 loss.margin=-0.1|0|5|nan sampler.batch_size=0|-3 sampler.faces_per_identity=1|0
        sampler.negative_share=-1|2|nan sampler.coverage=0 data.crop=0|-1|2|nan data.held_out=0|1|nan
        data.evaluation=-1|1|nan data.train_share=0|2|nan data.max_bad_share=-1|2|nan loader.workers=-1
        loader.cache_gb=-1|nan seed=-1 seed=4294967296 model.dropout=-1|1|nan model.embedding_dim=0|-1
        trainer.max_steps=0|-1 trainer.val_check_interval=-1 trainer.devices=0|-2 trainer.num_nodes=0
        trainer.log_every_n_steps=0|-1 trainer.refresh_rate=0|-1 mining.max_triplets=0|-1
        augment.rotate=-1|nan augment.scale=-1|2 augment.mirror=2|-1 augment.cutout=2 augment.shift=-1
        augment.blur=-1 large_batch.chunk_size=0|-1|some large_batch.memory_gb=0|nan optim.momentum=-1|nan
        harmonic.weight=nan
        """,
    ),
    *_numbers("verify", 2, "seed=-1 memory_gb=nan"),
    *_numbers("embed", 2, "batch_size=0|-1"),
    *_numbers("search", 2, "k=0|-1 far=0|-1|nan|2 threshold=-1|5|nan"),
    *_numbers("compare", 2, "far=0|-1|nan threshold=-1|5|nan"),
    *_numbers("cluster", 2, "threshold=-1|5|nan neighbours=0|-1 threads=0|-1 seed=-1"),
    *_numbers(
        "compat", 2, "gallery_faces=0|-1 steps=0|1 draws=0|-1 seed=-1 gate.min_gain=nan gate.max_negative_flips=2|nan"
    ),
    *_numbers("degrade", 2, "far=0|-1|nan batch_size=0 seed=-1 levels.jpeg=[0] levels.jpeg=[nan]"),
    *_numbers("export", 2, "calibration_images=0 batch_size=0 threads=0|-1 seed=-1"),
    *_numbers("align", 2, "margin=0|9|nan size=8|9999 score=0|2|nan min_face=0"),
    *_numbers(
        "tracks",
        2,
        """
        training.steps=0|-1 training.identities=1|0 training.tracks_each=1|0 training.lr=0|-1|nan
        training.weight_decay=-1 training.margin=-1|0|nan training.least_frames=0|2|nan training.check_every=0
        data.held_out=0|1|nan data.evaluation=0|1 data.max_frames=0 data.seed=-1 pool.key_dim=0
        pool.num_features=0 seeds=[-1]
        """,
    ),
    *_numbers("summary", 2, "model.dropout=-1|2|nan model.embedding_dim=0|-1"),
    *_numbers("benchmark", 2, "benchmark.kills=-1 benchmark.seed=-1"),
]
CASES = [*EVERYWHERE, *OWN, *RANGES]


class World(NamedTuple):
    """The folder of everything that the cases name."""

    root: Path

    def line(self, case: Case) -> list[str]:
        """The arguments of a case."""
        return case.arguments.format(**{name: self.root / file for name, file in PLACES.items()}).split()

    def state(self) -> dict[str, tuple[int, int]]:
        """Size and time of all that lies there, but for the run folder."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            if "runs" in folders:
                folders.remove("runs")
            for name in (*folders, *files):
                status = os.lstat(f"{folder}/{name}")
                found[f"{folder}/{name}"] = (status.st_size, status.st_mtime_ns if name in files else 0)
        return found


SAME = "faces one half flat tracks run empty closed missing new encoder other truncated embeddings others cut gallery"
PLACES = {
    **{name: name for name in (*SAME.split(), "damaged")},
    **{name: f"{name}.csv" for name in ("pairs", "nothing", "columns", "strangers", "bytes", "outside")},
    **{name: f"{name}.npy" for name in ("wide", "pickled")},
    **{name: f"{name}.txt" for name in ("file", "text")},
    **{name: f"{name}.jpg" for name in ("broken", "pipe")},
    "a": "faces/p000/1.png",
    "b": "faces/p001/1.png",
}


def make_world(root: Path) -> World:
    """Fill an empty folder."""
    faces = draw(identities=12, images_per_identity=6, size=48, difficulty=0.2, seed=3).images.reshape(12, 6, 48, 48, 3)
    for person in range(12):
        for number in range(6):
            picture, name = Image.fromarray(faces[person, number]), f"p{person:03d}/{number + 1}.png"
            place = f"p{person:03d}/{'ab'[number // 3]}/{number % 3}.png"
            targets = [f"faces/{name}", f"half/{name}", f"tracks/{place}", f"flat/{person}_{number}.png"]
            for target in (*targets, *([f"one/{name}"] if person == 0 else [])):
                (root / target).parent.mkdir(parents=True, exist_ok=True)
                picture.save(root / target)
            if number % 2:
                (root / f"half/{name}").write_bytes(f"broken {name}".encode())
    for folder in ("empty", "closed"):
        (root / folder).mkdir()
    for file, content in {
        "file.txt": "a file\n",
        "text.txt": "text\n",
        "broken.jpg": "no image",
        "nothing.csv": "",
        "columns.csv": "one,two\n1,2\n",
        "strangers.csv": "first,second,same\nx/1,x/2,1\ny/1,z/1,0\n",
        "outside.csv": "path,identity\n../../etc/passwd,a\n",
        "pairs.csv": "first,second,same\n"
        + "".join(
            f"p{a:03d}/{1 + i},p{b:03d}/{2 + i},{int(a == b)}\n" for a in range(4) for b in range(4) for i in range(3)
        ),
    }.items():
        (root / file).write_text(content)
    (root / "bytes.csv").write_bytes(b"first,second,same\n\xff\xfe,\xff,1\n")
    os.mkfifo(root / "pipe.jpg")
    (root / "run").mkdir()
    (root / "run" / "metrics.json").write_text('{"verification": {"accuracy": 0.9}}')
    _embedded(root)
    (root / "closed").chmod(0o555)
    return World(root)


def _embedded(root: Path) -> None:
    """Make two encoders, their embeddings and a gallery, and damaged copies."""
    records = scan_folder(root / "faces")
    for seed, name, vectors in ((0, "encoder", "embeddings"), (1, "other", "others")):
        torch.manual_seed(seed)
        options: dict[str, Any] = {"embedding_dim": 16, "norm": "batch", "input_size": [32, 32], "dropout": 0.0}
        model = build_model("small", **{**options, "input_size": (32, 32)})
        encoder = Encoder(model, "small", options, Preprocess(size=(32, 32)))
        encoder.thresholds = calibrate(encoder, records, (0.1, 0.01))
        bundle.save(encoder, root / name)
        embed_records(encoder, records)[0].save(root / vectors)
    with Gallery.open(root / "gallery", create=True) as gallery:
        gallery.add(EmbeddingSet.load(root / "embeddings"))
        gallery.save_cache(force=True)
    for source, copy, file in (
        ("encoder", "truncated", "encoder.safetensors"),
        ("embeddings", "cut", "vectors.npy"),
        ("gallery", "damaged", "items.sqlite"),
    ):
        shutil.copytree(root / source, root / copy)
        content = (root / copy / file).read_bytes()
        (root / copy / file).write_bytes(content[: len(content) // 2])
    np.save(root / "wide.npy", np.ones((2, 99), np.float32))
    np.save(root / "pickled.npy", np.array([{"a": 1}], object), allow_pickle=True)


def play(world: World, case: Case) -> Outcome:
    """Run a case in this process, which saves the seconds that its imports take."""
    before, said = world.state(), io.StringIO()
    kept = sys.argv, sys.path[:], Path.cwd(), dict(os.environ)
    arguments = world.line(case)
    if not any(argument.startswith("hydra.run.dir=") for argument in arguments):
        arguments.append(f"hydra.run.dir={world.root / 'runs' / 'run'}")
    code, crash = 0, ""
    sys.argv = [f"{case.command}.py", *arguments]
    sys.path.insert(0, str(SCRIPTS))
    os.chdir(world.root)
    try:
        with (
            _limited(),
            warnings.catch_warnings(),
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            runpy.run_path(str(SCRIPTS / f"{case.command}.py"), run_name="__main__")
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        code, crash = 1, f"{type(error).__name__}: {error}"
    finally:
        sys.argv, sys.path[:] = kept[:2]
        os.chdir(kept[2])
        os.environ.clear()
        os.environ.update(kept[3])
        _forget_hydra()
    return Outcome(code, said.getvalue(), crash, _differences(before, world))


def play_apart(world: World, case: Case) -> Outcome:
    """Run a case as a user does: the command in a process of its own."""
    before = world.state()
    arguments = world.line(case)
    if not any(argument.startswith("hydra.run.dir=") for argument in arguments):
        arguments.append(f"hydra.run.dir={world.root / 'runs' / 'run'}")
    line = [sys.executable, str(SCRIPTS / f"{case.command}.py"), *arguments]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, check=False, cwd=world.root, env=environment, timeout=PATIENCE
        )
        return Outcome(done.returncode, done.stderr, "", _differences(before, world))
    except subprocess.TimeoutExpired:
        return Outcome(1, "", "it hangs", _differences(before, world))


def _differences(before: dict[str, tuple[int, int]], world: World) -> tuple[str, ...]:
    after = world.state()
    shutil.rmtree(world.root / "runs", ignore_errors=True)
    return tuple(sorted(path for path in {*before, *after} if before.get(path) != after.get(path)))


def _forget_hydra() -> None:
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()


@contextlib.contextmanager
def _without_hydra() -> Iterator[None]:
    """Let the cases start as commands do, also within a command."""
    from hydra.core.singleton import Singleton

    state = Singleton.get_state()
    _forget_hydra()
    try:
        yield
    finally:
        Singleton.set_state(state)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise TimeoutError where a case hangs."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it hangs")

    earlier = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


def amiss(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with what came of a case: names of the counts that :func:`run` returns."""
    lines = outcome.errors.strip().splitlines()
    found = []
    if outcome.crash or "Traceback" in outcome.errors:
        found.append("tracebacks")
    if outcome.code != case.code:
        found.append("wrong_exit_codes")
    if (
        len(lines) != 1
        or not lines[0].startswith("error: ")
        or not any(word in lines[0] for word in case.says.split("|"))
    ):
        found.append("unclear")
    if outcome.changed:
        found.append("changed")
    return found


def run(
    *, cases: int = 0, children: int = 15, folder: str = "", temporary: str = "", seed: int = 0
) -> dict[str, dict[str, int]]:
    """Play `cases` of the cases (0: all), `children` of them also as processes of their own; counts of what went wrong.

    Root plays them without root's power to write everywhere.
    """
    rng = np.random.default_rng(seed)
    chosen = [CASES[row] for row in sorted(rng.permutation(len(CASES))[: cases or len(CASES)])]
    apart = [chosen[row] for row in sorted(rng.permutation(len(chosen))[:children])]
    told = {}
    with tempfile.TemporaryDirectory(prefix="facenet-inputs-", dir=folder or None) as name:
        world = make_world(Path(name))
        with as_a_user(), _without_hydra():
            for what, some, how in (("bad input", chosen, play), ("bad input, by processes", apart, play_apart)):
                counts = dict.fromkeys(
                    ("cases", "one_clear_line", "tracebacks", "wrong_exit_codes", "unclear", "changed"), 0
                )
                for number, case in enumerate(some, 1):
                    outcome = how(world, case)
                    found = amiss(case, outcome)
                    counts["cases"] += 1
                    counts["one_clear_line"] += not found
                    for problem in found:
                        counts[problem] += 1
                    if found:
                        print(f"{case.command} {case.arguments}: {', '.join(found)}: {outcome}", flush=True)
                    if number % 50 == 0:
                        print(f"{what}: {number} of {len(some)}", flush=True)
                told[what] = counts
        (world.root / "closed").chmod(0o755)
    return told
