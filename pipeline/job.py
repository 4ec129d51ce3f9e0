"""A job as every process of its run needs it: its settings, its model opened once, its schema."""

from dataclasses import dataclass

import pyarrow as pa

from pipeline import model, model_folder, schema, topology
from pipeline.config import Config
from pipeline.decode import DECODERS
from pipeline.errors import ConfigInvalid, Mistake
from pipeline.ranking import Rules
from pipeline.recipe import Maker, Recipe, find_maker, make_recipe, signature_recipe
from pipeline.rules import read_rules
from pipeline.signature import check_signature


@dataclass(frozen=True, slots=True)
class Job:
    """What every actor of a run needs: settings, model, schema, and facts of the cluster."""

    config: Config
    files: model.ModelFiles
    signature: model.Signature
    schema: pa.Schema
    maker: Maker | None
    rules: Rules | None
    dead_value_bytes: int


def prepare(config: Config) -> Job:
    """Resolve and open the model, fix the schema. Raises ConfigInvalid with every mistake."""
    from pipeline.edges.onnx import OnnxModel

    folder = model_folder.resolve(config.model)
    files = model_folder.load_files(folder)
    signature = OnnxModel(files.model, file=str(folder / "model.onnx")).signature
    mistakes = check_signature(files.spec, signature, str(folder / "model.yaml"))
    if mistakes:
        raise ConfigInvalid(mistakes)
    maker = find_maker(config.recipe) if config.recipe else None
    fields = recipe_of(config, files, signature, maker).fields
    ranking = files.spec.ranking
    if ranking is None and (config.ranking.allow or config.ranking.deny):
        way_out = "Leave it out, or describe the ranking in model.yaml"
        mistake = Mistake("ranking", str(folder), "is set for a model that does not rank", way_out)
        raise ConfigInvalid([mistake])
    return Job(
        config=config,
        files=files,
        signature=signature,
        schema=schema.job_schema(fields, config.output.compression),
        maker=maker,
        rules=None if ranking is None else read_rules(config.ranking, ranking.vocabulary),
        dead_value_bytes=topology.DEFAULT_MESSAGE_BYTES - topology.DEAD_LETTER_OVERHEAD,
    )


def recipe_of(
    config: Config, files: model.ModelFiles, signature: model.Signature, maker: Maker | None
) -> Recipe:
    """How records become inputs, and outputs rows: by the user's code, or by the signature."""
    if maker is not None:
        return make_recipe(maker, files, signature)
    return signature_recipe(
        files.spec,
        signature,
        config.input.pass_through,
        DECODERS[config.input.format],
        config.input.event_time,
    )
