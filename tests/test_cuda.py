"""What only a CUDA device can show. Skipped elsewhere."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor.cudagraph_trees import get_manager

from diffusion import fast_sampling, runs
from diffusion.acceleration import Acceleration
from diffusion.compiling import gradient_error
from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.fast_sampling import Recording, fast
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.memory import resident, rows_of
from diffusion.models.dit import DiT
from diffusion.models.identity import Identity
from diffusion.models.normalization import GroupNorm
from diffusion.models.unet import UNet
from diffusion.parameterizations import V
from diffusion.schedules import Cosine
from diffusion.training.finite import FiniteGradients, NonFinite
from diffusion.training.gathered import Gathered
from diffusion.training.meter import Meter
from diffusion.training.muon import Muon
from tests.small_runs import train, use

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
UNET = {"widths": [32, 64], "blocks_per_level": 1, "self_attention": [False, True], "cross_attention": [False, True],
        "heads_dim": 32, "context_dim": 16}
DIT = {"patch": 2, "width": 64, "depth": 2, "heads": 2, "context_dim": 16}


def jittered(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.cuda().eval()


@pytest.fixture(params=["unet", "dit"])
def denoiser(request):
    torch.manual_seed(0)
    network = UNet(3, **UNET) if request.param == "unet" else DiT(3, **DIT)
    return Denoiser(jittered(network), Cosine(), V())


class Told(LatentDiffusion):
    """Prompts are numbers: seeds of their tokens."""

    def condition(self, prompts):
        tokens = [torch.randn(5, 16, generator=torch.Generator().manual_seed(int(p or 0))) for p in prompts]
        return Conditioning(torch.stack(tokens).cuda())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recorded_sampling_gives_the_same_pictures_prompt_after_prompt(denoiser, dtype):
    model = Told(Identity(), None, denoiser, (3, 8, 8))
    model.accelerate(Acceleration("bf16-mixed" if dtype == torch.bfloat16 else "32"))
    sampling = Sampling(steps=5)
    batches = [["1", "2"], ["3", "4"], ["5", "6", "7"], ["1", "2"]]
    noise = {n: torch.randn(n, 3, 8, 8, device="cuda") for n in (2, 3)}
    plain = [model.generate(prompts, lambda x: noise[len(x)], sampling) for prompts in batches]
    with fast(denoiser) as network:
        replayed = [model.generate(prompts, lambda x: noise[len(x)], sampling) for prompts in batches]
        assert len(network.ways) == 2 and all(isinstance(way, Recording) for way in network.ways.values())
    for a, b in zip(plain, replayed, strict=True):
        assert (a.int() - b.int()).abs().max() <= 1
    assert not torch.equal(plain[0], plain[1])
    assert denoiser.fast is None


def test_a_compiled_network_is_recorded_too(denoiser, monkeypatch, compilable):
    seconds = iter([1.0, 0.5])
    monkeypatch.setattr(fast_sampling, "timed", lambda way, *inputs: (way(*inputs), next(seconds)))
    model = Told(Identity(), None, denoiser, (3, 8, 8))
    model.accelerate(Acceleration("bf16-mixed", channels_last=True))
    noise, sampling = torch.randn(2, 3, 8, 8, device="cuda"), Sampling(steps=5)
    with fast(denoiser) as network:
        first, other = (model.generate(prompts, lambda x: noise, sampling) for prompts in (["1", "2"], ["3", "4"]))
        before, = network.ways.values()
        network.try_compiled()
        again, another = (model.generate(prompts, lambda x: noise, sampling) for prompts in (["1", "2"], ["3", "4"]))
        after, = network.ways.values()
        assert isinstance(after, Recording) and after is not before
    assert (first.int() - again.int()).float().abs().mean() < 2
    assert (other.int() - another.int()).float().abs().mean() < 2


def test_replayed_gradients_are_those_of_the_eager_network(compilable):
    torch.manual_seed(0)
    network = jittered(UNet(3, **UNET)).train()
    x, label = torch.randn(4, 3, 16, 16, device="cuda"), torch.linspace(0, 1000, 4, device="cuda")
    example = x, label, Conditioning(torch.randn(4, 5, 16, device="cuda"))
    skipped = counters["inductor"]["cudagraph_skips"]
    worst, _ = gradient_error(network, example, Acceleration(compile=True, graphs=True))
    assert worst < 1e-2 and counters["inductor"]["cudagraph_skips"] == skipped
    recorded = get_manager(0, create_if_none_exists=False)
    assert recorded is not None and any(recorded.get_roots())


def test_a_stage_ends_where_it_was_trained(hydra, monkeypatch):
    devices, finish = [], runs.finish
    monkeypatch.setattr(runs, "finish", lambda stage, training, data: (
        devices.append(training.device.type), finish(stage, training, data)))
    train("experiment=shapes_autoencoder", "steps=2")
    assert devices == ["cuda"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, Muon])
def test_an_update_that_is_not_finite_is_not_made_and_told_later(optimizer, bad):
    layer = nn.Linear(16, 16).cuda()
    optimizer = optimizer(layer.parameters(), fused=True)
    finite = FiniteGradients()

    def update(step: int, scale: float) -> None:
        optimizer.zero_grad()
        (scale * layer(torch.ones(2, 16, device="cuda")).sum()).backward()
        finite.look(nn.utils.clip_grad_norm_(layer.parameters(), 1.0), optimizer, step)
        optimizer.step()

    update(0, 1.0)
    before, bias = layer.weight.clone(), layer.bias.clone()
    update(1, bad)
    assert torch.equal(layer.weight, before) and torch.equal(layer.bias, bias)
    update(2, 1.0)
    assert layer.weight.isfinite().all() and not torch.equal(layer.weight, before)
    with pytest.raises(NonFinite, match="step 1 "):
        finite.wait()
    with pytest.raises(NonFinite, match="step 3 "):
        for step in range(3, 4 + finite.LAG):
            update(step, bad)


@pytest.mark.parametrize("clip", [1e-2, 1e9])
def test_the_recorded_update_is_that_of_a_cpu(clip):
    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 40), (48, 20), (16, 40), (16, 8, 3, 3), (16, 20, 1, 1), (7,)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    on = {device: [nn.Parameter(p.clone().to(device)) for p in start] for device in ("cpu", "cuda")}
    for i in (3, 4):
        on["cuda"][i].data = on["cuda"][i].data.to(memory_format=torch.channels_last)
    made = {device: Muon(parameters, lr=0.01) for device, parameters in on.items()}
    gathered = Gathered(on["cuda"])
    for step in range(12):
        gradients = [torch.randn(shape, generator=generator) for shape in shapes]
        for device, optimizer in made.items():
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
            optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(float(step == 5), device=device)
            for p, g in zip(on[device], gradients, strict=True):
                p.grad = (g * (torch.nan if step == 5 else 1)).to(device)
            if device == "cuda":
                gathered.gather()
                gathered.clip(clip)
            else:
                nn.utils.clip_grad_norm_(on[device], clip)
            optimizer.step()
            if step == 7:  # what was recorded wrote into other memory
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    (_, replayed), = made["cuda"].recorded.values()
    assert replayed.graph is not None
    for a, b in zip(on["cpu"], on["cuda"], strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=0, atol=1e-4)


def test_group_normalisation_compiled_is_one_kernel(compilable, monkeypatch):
    from diffusion.models import group_norm_kernels

    seen, kernel = [], group_norm_kernels.forward

    def counted(*inputs):
        seen.append(True)
        return kernel(*inputs)

    monkeypatch.setattr(group_norm_kernels, "forward", counted)
    norm, x = GroupNorm(32, 128).cuda(), torch.randn(4, 128, 16, 16, device="cuda")
    x = x.to(memory_format=torch.channels_last)
    expected = norm(x, silu=True)
    assert not seen
    found = torch.compile(norm)(x, silu=True)
    assert seen
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_rows_of_what_lies_on_the_device_are_fetched_without_waiting():
    data = resident(torch.arange(12.0).reshape(6, 2), torch.device("cuda"))
    assert data.is_cuda
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows = rows_of(data, torch.tensor([4, 1]))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert rows.tolist() == [[8.0, 9.0], [2.0, 3.0]]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_of_training_does_not_wait_for_the_device(tmp_path, monkeypatch, optimizer):
    import hydra

    from diffusion import pipeline
    from diffusion.callbacks import watch
    from diffusion.cli import CONFIGS, composed

    recorded = []

    class Strict(watch.Validation):
        def on_train_batch_start(self, trainer, training, batch, batch_idx) -> None:
            if batch_idx == 5:
                torch.cuda.set_sync_debug_mode("warn")
                torch.ones((), device="cuda").item()  # this one is seen

        def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
            if batch_idx == 8:
                torch.cuda.set_sync_debug_mode("default")
                recorded.extend(way for _, way in getattr(trainer.optimizers[0], "recorded", {}).values())

    Strict.__module__ = watch.__name__
    monkeypatch.setattr(watch, "Validation", Strict)
    asked = ["experiment=latent_shapes", f"optimizer={optimizer}", "steps=12", "batch=16", "log_every=100",
             "evaluation=none", "sampling_steps=2", "data.train=200", "data.test=50", f"paths.runs={tmp_path}/runs",
             f"paths.cache={tmp_path}/cache", "compile=false",
             *(f'+parents.{part}.overrides=["steps=4","log_every=100"]' for part in ("autoencoder", "text_encoder"))]
    with hydra.initialize_config_dir(CONFIGS, version_base="1.3"), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cfg, choices = composed(asked)
        pipeline.main(cfg, choices, asked, composed)
    waits = [w for w in told if "called a synchronizing CUDA operation" in str(w.message)]
    assert len(waits) == 1  # the parents end before
    assert [way.graph is not None for way in recorded] == [True] * (optimizer == "muon")


def test_loss_scaling_clips_gradients_that_are_not_scaled(hydra, monkeypatch, tmp_path):
    """The precision does not change the norm before clipping but by rounding."""
    norms, add = {}, Meter.add
    for precision in ("32", "16-mixed"):
        seen = norms[precision] = []
        monkeypatch.setattr(Meter, "add", lambda meter, name, value, seen=seen: (
            seen.append(value) if name == "gradient_norm" else None, add(meter, name, value))[1])
        use(tmp_path / precision, monkeypatch)
        train("experiment=shapes_autoencoder", "steps=2", f"precision={precision}")
    torch.testing.assert_close(norms["16-mixed"][0], norms["32"][0], rtol=0.05, atol=0)
