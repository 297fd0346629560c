"""The deployer of processes keeps the promises of the port, with the real model server and a real, tiny model."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import onnx
import pytest
from deploying import MakeDeployer
from onnx import TensorProto, helper

from graylift.adapters.processes import SERVE, ProcessDeployer
from graylift.domain.engine import EngineSpec, Runtime
from graylift.domain.revision import InstanceState, Revision, ServedEngine
from graylift.domain.spec import TensorName
from graylift.engine.artefacts import ArtefactStore
from graylift.ports import Deployer
from graylift.testing.conformance_deployer import DeployerConformance, Pair
from graylift.testing.fakes import FakeClock, FakeDeployer


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artefacts")


@pytest.fixture(scope="module")
def engine(artefacts: Path) -> ServedEngine:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
    )
    source = artefacts / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), source)
    manifest = ArtefactStore(artefacts).build(EngineSpec(str(source), Runtime.ONNXRUNTIME))
    return ServedEngine(manifest.digest, inputs=(TensorName("numbers", "x"),))


@pytest.mark.real
class TestProcessDeployer(DeployerConformance):
    @pytest.fixture
    def revisions(self, engine: ServedEngine) -> Pair:
        return Revision("tiny", "v1", "1" * 64, engine, 30.0), Revision("tiny", "v2", "2" * 64, engine, 30.0)

    @pytest.fixture
    def deployer(self, make_deployer: MakeDeployer, artefacts: Path) -> ProcessDeployer:
        return make_deployer(serve=SERVE, artefacts=artefacts)

    @pytest.fixture(autouse=True)
    def _servers(self, tmp_path: Path) -> None:
        self.root = tmp_path / "servers"

    async def test_files_of_the_working_directory_are_not_taken_for_modules(
        self, deployer: Deployer, revisions: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "uvicorn.py").write_text("raise ImportError('the wrong uvicorn')")
        monkeypatch.chdir(tmp_path)
        await deployer.ensure(revisions[0])
        await self.seen(deployer, revisions[0], InstanceState.READY)

    async def kill(self, deployer: Deployer, revision: Revision) -> None:
        state = json.loads((self.root / revision.id / "server.json").read_text())
        os.kill(state["server"]["process"]["pid"], signal.SIGKILL)


class TestFakeDeployer(DeployerConformance):
    # To the fake all revisions are servers of its own, endpoints included: tests of the controller need one kind only.
    test_the_endpoint_of_somebody_else_is_never_ours = None  # type: ignore[assignment]

    @pytest.fixture
    def revisions(self) -> Pair:
        return Revision("tiny", "v1", "1" * 64, ServedEngine("a" * 64), 30.0), Revision(
            "tiny", "v2", "2" * 64, ServedEngine("b" * 64), 30.0
        )

    @pytest.fixture
    def deployer(self) -> FakeDeployer:
        return FakeDeployer(FakeClock())

    async def kill(self, deployer: Deployer, revision: Revision) -> None:
        assert isinstance(deployer, FakeDeployer)
        deployer.kill(revision.name)
