"""Mistakes that several commands share, numbers out of range, and the whole table."""

from __future__ import annotations

from tests.commands.mistakes.single import (
    ALIGN,
    BASE,
    CLUSTER,
    COMPARE,
    COMPAT,
    DEGRADE,
    EMBED,
    EXPORT,
    SEARCH,
    SINGLE,
    TRACKS,
    TRAIN,
    VERIFY,
    Case,
)

SHARED = [
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
        augment.blur=-1 augment.degrade=2|nan large_batch.chunk_size=0|-1|some large_batch.memory_gb=0|nan
        optim.momentum=-1|nan harmonic.weight=nan optim.lr=1e300 model.embedding_dim=99999999999 loss.head_share=7
        loss.head_weight=-1
        """,
    ),
    *_numbers("verify", 2, "seed=-1 memory_gb=nan"),
    *_numbers("embed", 2, "batch_size=0|-1"),
    *_numbers("search", 2, "k=0|-1 far=0|-1|nan|2 threshold=-1|5|nan by_identity=2 sheet=2"),
    *_numbers("compare", 2, "far=0|-1|nan threshold=-1|5|nan fpir=0|1"),
    *_numbers("report", 2, "fpir=0|1|nan"),
    *_numbers("cluster", 2, "threshold=-1|5|nan neighbours=0|-1 threads=0|-1 seed=-1"),
    *_numbers(
        "compat", 2, "gallery_faces=0|-1 steps=0|1 draws=0|-1 seed=-1 gate.min_gain=nan gate.max_negative_flips=2|nan"
    ),
    *_numbers("degrade", 2, "far=0|-1|nan batch_size=0 seed=-1 levels.jpeg=[0] levels.jpeg=[nan] allow_missing=2"),
    *_numbers("export", 2, "calibration_images=0 batch_size=0 threads=0|-1 seed=-1 speed=2 allow_missing=2"),
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
CASES = [*SHARED, *SINGLE, *RANGES]
