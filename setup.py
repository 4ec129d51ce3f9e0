"""The compiled parts. Where no C++17 compiler is, the package installs and works without it."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            name,
            [f"{name.replace('.', '/')}.cpp"],
            depends=[
                "pipeline/_buffers.h",
                "pipeline/_numbers.h",
                "pipeline/edges/kafka/_librdkafka.h",
            ],
            language="c++",
            extra_compile_args=["-std=c++17", "-O3"],
            # One build serves every Python from 3.11 on.
            py_limited_api=True,
            optional=True,
        )
        for name in (
            "pipeline._scan",
            "pipeline._encode",
            "pipeline.edges.kafka._consume",
            "pipeline.edges.kafka._produce",
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
