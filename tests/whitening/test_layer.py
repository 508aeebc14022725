"""Whitening: invariants, references, gradients, golden values, degenerate input, state."""

import copy
import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from timm.layers import BatchNormAct2d
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

from fwstudy.whitening.covariance import covariance, shrink
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.solvers import SOLVERS
from fwstudy.whitening.statistics import update_statistics, whiteness, whiteness_by_mode
from tests.whitening.matrices import correlated, residual, spd

CONVERGED = ["eigh", "cholesky", "newton_schulz"]


# --- the layer
@pytest.mark.parametrize("mode", [True, False])
def test_one_channel_groups_are_a_batch_norm(mode):
    norm, features = nn.BatchNorm2d(6), correlated(4, 6, 3, 5)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    layer = FeatureWhitening.from_batch_norm(norm, num_groups=6)
    for batch in features.split(2):
        torch.testing.assert_close(layer(batch), norm(batch), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.running_covariance.flatten(), norm.running_var)
    torch.testing.assert_close(layer.running_mean, norm.running_mean)
    torch.testing.assert_close(
        layer.train(mode)(features), norm.train(mode)(features), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("act_layer", [nn.ReLU, nn.SiLU, nn.Identity, None])
@pytest.mark.parametrize("solver", CONVERGED)
def test_from_batch_norm_equals_it_in_evaluation(act_layer, solver):
    norm = nn.BatchNorm2d(8)
    if act_layer is not None:
        options = {"inplace": False, "eps": 1e-3, "drop_layer": lambda: nn.Dropout(0.5)}
        norm = BatchNormAct2d(8, act_layer=act_layer, **options)
    for _ in range(5):
        norm(correlated(4, 8, 3, 3))
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    layer = FeatureWhitening.from_batch_norm(norm.eval(), num_groups=2, solver=solver)
    features = correlated(4, 8, 3, 3)
    assert not layer.training
    assert (layer.eps, layer.momentum) == (norm.eps, norm.momentum)
    torch.testing.assert_close(layer(features), norm(features), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.BatchNorm2d(4, track_running_stats=False)])
def test_from_batch_norm_refuses_others(norm):
    with pytest.raises(ValueError, match="norm must be a BatchNorm2d that tracks"):
        FeatureWhitening.from_batch_norm(norm)


def test_from_batch_norm_without_affine():
    layer = FeatureWhitening.from_batch_norm(nn.BatchNorm2d(4, affine=False))
    assert layer.weight is None and layer.bias is None
    assert layer(correlated(2, 4, 3, 3)).shape == (2, 4, 3, 3)


def frozen(layer, mode):
    """A function of the features alone: each call works on a copy of the layer."""
    layer = layer.double().train(mode)
    return lambda features: copy.deepcopy(layer)(features)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("interval", [1, 7])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("solver", CONVERGED)
def test_layer_gradient(mode, interval, groups, solver):
    layer = FeatureWhitening(4, groups, solver=solver, whiten_every=interval)
    layer(correlated(4, 4, 3, 3))
    layer.set_rotation(torch.linalg.qr(torch.randn(4, 4))[0])
    features = correlated(3, 4, 2, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(frozen(layer, mode), features, atol=1e-4)


def test_second_derivative_through_exact_training():
    features = correlated(3, 2, 2, 2, dtype=torch.float64).requires_grad_()
    layer = FeatureWhitening(2, shrinkage=0.1)
    assert torch.autograd.gradgradcheck(frozen(layer, True), features, atol=1e-4)


def test_exact_training_ignores_an_affine_change_of_its_input():
    # Whitened features are unique up to a rotation, so distances between them do not change.
    features = correlated(8, 4, 3, 3, dtype=torch.float64)
    mixing = torch.randn(4, 4, dtype=torch.float64)
    layer = FeatureWhitening(4, eps=1e-10, shrinkage=0.0).double()
    one = layer(features).movedim(1, -1).reshape(-1, 4)
    other = layer(torch.einsum("dc,nchw->ndhw", mixing, features) + 1).movedim(1, -1).reshape(-1, 4)
    torch.testing.assert_close(
        torch.cdist(one, one), torch.cdist(other, other), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("interval", [1, 5])
def test_evaluation_whitens_the_running_covariance(interval):
    layer = FeatureWhitening(6, momentum=0.2, shrinkage=0.0, whiten_every=interval)
    mixing = torch.randn(6, 6)

    def draw():
        return torch.einsum("dc,nchw->ndhw", mixing, torch.randn(64, 6, 6, 6)) + 1

    for _ in range(43):
        layer(draw())
    trained, evaluated = whiteness(layer(draw())), whiteness(layer.eval()(draw()))
    assert residual(layer.whitening, layer.running_covariance) < 1e-2
    assert trained["max_correlation"] < 0.1
    assert evaluated["max_correlation"] < 0.1
    assert evaluated["mean_variance"] == pytest.approx(1, abs=0.1)


def test_amortised_refreshes_every_interval_and_is_constant_in_between():
    layer = FeatureWhitening(4, whiten_every=3)
    seen = []
    for _ in range(6):
        layer(correlated(4, 4, 3, 3))
        seen.append(layer.whitening.clone())
    changes = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert changes == [False, False, True, False, False]  # before the fourth and the seventh batch
    stale = layer.whitening.clone()
    assert not torch.equal(layer.eval().whitening, stale)


def test_rotation_turns_the_output():
    layer = FeatureWhitening(4, num_groups=2, affine=False).eval()
    layer.running_covariance.copy_(spd(2, blocks=(2,)))
    layer.refresh()
    features = correlated(2, 4, 3, 3)
    plain = layer(features)
    layer.set_rotation(torch.eye(4)[[2, 0, 3, 1]])
    torch.testing.assert_close(layer(features), plain[:, [2, 0, 3, 1]])
    torch.testing.assert_close(layer.normalize(features), layer(features))
    deviations = (features - layer.running_mean[:, None, None])[:, :, 0, 0].T
    torch.testing.assert_close(layer.decorrelate(deviations), plain[:, :, 0, 0].T)


# --- degenerate input


@pytest.mark.parametrize("solver", CONVERGED)
@pytest.mark.parametrize(
    ("shape", "options"),
    [((1, 32, 2, 2), {}), ((2, 32, 1, 1), {}), ((1, 32, 8, 8), {})]
    + [((4, 8, 4, 4), {"shrinkage": value}) for value in (0.0, 0.1, "oas")],
)
def test_few_samples_one_image_and_constant_channels(solver, shape, options):
    layer = FeatureWhitening(shape[1], solver=solver, **options)
    features = correlated(*shape)
    if options:
        features[:, ::2] = 7
    output = layer(features.requires_grad_())
    output.square().sum().backward()
    assert output.isfinite().all()
    assert features.grad.isfinite().all()
    assert layer.eval()(features).isfinite().all()


def test_one_location_is_refused_in_training_only():
    layer = FeatureWhitening(4)
    with pytest.raises(ValueError, match="at least 2 locations in training, not 1"):
        layer(torch.randn(1, 4, 1, 1))
    assert layer.eval()(torch.randn(1, 4, 1, 1)).shape == (1, 4, 1, 1)


# --- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_groups": 4}, "num_groups must divide num_features = 6, not 4"),
        ({"num_groups": 0}, "num_groups must divide num_features = 6, not 0"),
        ({"eps": 0.0}, "eps must be above 0, not 0.0"),
        ({"momentum": 1.5}, r"momentum must be in \[0, 1\], not 1.5"),
        ({"momentum": None}, r"momentum must be in \[0, 1\], not None"),
        ({"solver": "qr"}, "solver must be one of eigh, cholesky, newton_schulz, .*, not 'qr'"),
        ({"shrinkage": -0.1}, r"shrinkage must be in \[0, 1\] or one of oas, not -0.1"),
        ({"shrinkage": "best"}, r"shrinkage must be in \[0, 1\] or one of oas, not 'best'"),
        ({"whiten_every": 0}, "whiten_every must be at least 1, not 0"),
    ],
)
def test_argument_errors(options, message):
    with pytest.raises(ValueError, match=message):
        FeatureWhitening(6, **options)


@pytest.mark.parametrize("shape", [(2, 5, 3, 3), (2, 6)])
def test_input_errors(shape):
    with pytest.raises(ValueError, match=r"features must be \(N, 6, H, W\), not \(2, "):
        FeatureWhitening(6)(torch.randn(shape))


# --- state, precision, tools


@pytest.mark.parametrize("interval", [1, 4])
def test_state_dict_round_trip(interval):
    layer = FeatureWhitening(6, 2, whiten_every=interval)
    for _ in range(5):
        layer(correlated(4, 6, 3, 3))
    state = copy.deepcopy(layer.state_dict())
    assert list(state) == [
        "weight",
        "bias",
        "running_mean",
        "running_covariance",
        "whitening",
        "rotation",
        "num_batches_tracked",
    ]
    features = correlated(2, 6, 3, 3)
    evaluated = FeatureWhitening(6, 2).eval()
    evaluated.load_state_dict(state)  # written in training: its whitening matrix was out of date
    resumed = pickle.loads(pickle.dumps(FeatureWhitening(6, 2, whiten_every=interval)))
    resumed.load_state_dict(state)
    torch.testing.assert_close(resumed(features), layer(features), rtol=0, atol=0)
    layer.load_state_dict(state)
    torch.testing.assert_close(evaluated(features), layer.eval()(features), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("interval", [1, 2])
def test_autocast_keeps_statistics_in_float32(dtype, interval):
    features = correlated(4, 8, 4, 4).to(dtype)
    layer, reference = (FeatureWhitening(8, whiten_every=interval) for _ in range(2))
    for _ in range(3):
        with torch.autocast("cpu", dtype=dtype):
            output = layer(features)
        expected = reference(features.float())
    assert output.dtype == dtype
    assert layer.running_covariance.dtype == torch.float32
    torch.testing.assert_close(layer.running_covariance, reference.running_covariance)
    torch.testing.assert_close(output.float(), expected, atol=0.03, rtol=0.03)


def test_inference_mode():
    layer = FeatureWhitening(4)
    layer(correlated(4, 4, 3, 3))
    with torch.inference_mode():
        layer.eval()(correlated(4, 4, 3, 3))
    layer.train()(correlated(4, 4, 3, 3).requires_grad_()).sum().backward()
    layer.eval()(correlated(4, 4, 3, 3).requires_grad_()).sum().backward()


def test_channels_last_gives_the_same_values_in_its_own_memory_format():
    features, layer = torch.randn(2, 4, 3, 3), FeatureWhitening(4)
    expected = copy.deepcopy(layer)(features)
    found = layer(features.to(memory_format=torch.channels_last))
    assert expected.is_contiguous()
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)


@settings(max_examples=15)
@given(
    groups=st.integers(1, 3),
    size=st.integers(1, 4),
    batch=st.integers(2, 4),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    interval=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_any_shape(groups, size, batch, height, width, interval, dtype):
    layer = FeatureWhitening(groups * size, groups, whiten_every=interval).to(dtype)
    features = torch.randn(batch, groups * size, height, width, dtype=dtype)
    for mode in (True, False):
        output = layer.train(mode)(features)
        assert output.shape == features.shape
        assert output.dtype == dtype
        assert output.isfinite().all()


def test_update_statistics_equals_all_batches_at_once():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), FeatureWhitening(4, 2), nn.ReLU())
    model[1].eval()
    images = correlated(10, 3, 4, 4)
    layer = model[2]
    before = model[1].running_mean.clone()
    update_statistics(model, layer, [(images[:3], 0), images[3:4], (images[4:], 1)])
    inputs = copy.deepcopy(model[:2]).eval()(images)
    mean, blocks = covariance(inputs, 2)
    torch.testing.assert_close(layer.running_mean, mean)
    expected = shrink(blocks * 160 / 159, 160, "oas").float()
    torch.testing.assert_close(layer.running_covariance, expected)
    assert residual(layer.whitening, layer.running_covariance) < 1e-2
    torch.testing.assert_close(model[1].running_mean, before)
    assert model.training and layer.training and not model[1].training
    assert not layer._forward_hooks


def test_update_statistics_without_batches():
    layer = FeatureWhitening(4)
    with pytest.raises(ValueError, match="at least two locations, not 0"):
        update_statistics(layer, layer, [])
    with pytest.raises(ValueError, match="features must be"):
        update_statistics(layer, layer, [torch.randn(2, 3, 2, 2)])
    assert not layer._forward_hooks


def test_whiteness_golden():
    # Two channels with variances 4 and 1 and correlation 1/2: eigenvalues (5 +- sqrt 13) / 2.
    normal = torch.randn(400, 2, dtype=torch.float64)
    mean, blocks = covariance(normal)
    white = (normal - mean) @ SOLVERS["cholesky"](blocks[0], 1e-14).T
    factor = torch.linalg.cholesky(torch.tensor([[4.0, 1], [1, 1]], dtype=torch.float64))
    found = whiteness(white @ factor.T)
    assert found["mean_correlation"] == pytest.approx(0.5)
    assert found["max_correlation"] == pytest.approx(0.5)
    assert found["mean_variance"] == pytest.approx(2.5)
    assert found["condition_number"] == pytest.approx((5 + 13**0.5) / (5 - 13**0.5))
    assert whiteness(white)["effective_rank"] == pytest.approx(2)


def test_whiteness_of_constant_channels():
    features = torch.randn(10, 3)
    features[:, 1] = 2
    found = whiteness(features)
    assert 0 < found["max_correlation"] < 1
    assert found["condition_number"] > 1e12
    assert whiteness(features[:, :1])["max_correlation"] == 0


@pytest.mark.parametrize("interval", [1, 2])
def test_compiles(interval):
    """Exact training does so without a break."""
    layer = FeatureWhitening(4, whiten_every=interval)
    reference = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=interval == 1)
    for _ in range(3):
        features = [correlated(2, 4, 3, 3).requires_grad_()]
        features.append(features[0].detach().clone().requires_grad_())
        outputs = [module(x) for module, x in zip((compiled, reference), features, strict=True)]
        torch.testing.assert_close(*outputs)
        for output in outputs:
            output.pow(3).sum().backward()
        torch.testing.assert_close(features[0].grad, features[1].grad)


def test_evaluation_is_compiled_and_exported_in_one_graph():
    layer, features = FeatureWhitening(4), correlated(2, 4, 3, 3)
    layer(features)
    expected = layer.eval()(features)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    exported = torch.export.export(layer, (features,), strict=True).module()
    torch.testing.assert_close(compiled(features), expected)
    torch.testing.assert_close(exported(features), expected)


@pytest.mark.parametrize("with_buffers", [False, True])
def test_gradients_of_single_images_by_torch_func(with_buffers):
    """In evaluation, as torch's tutorial has it: with detached parameters and buffers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), FeatureWhitening(4, num_groups=2), nn.Flatten())
    images = torch.randn(5, 3, 6, 6)
    model(images)
    model.eval()
    weights = {name: value.detach() for name, value in model.named_parameters()}
    buffers = {name: value.detach() for name, value in model.named_buffers()}

    def loss(weights: dict, image: torch.Tensor) -> torch.Tensor:
        state = weights, buffers if with_buffers else {}
        return functional_call(model, state, (image[None],)).square().sum()

    found = vmap(grad(loss), (None, 0))(weights, images)["0.weight"]
    for image, gradient in zip(images, found, strict=True):
        model.zero_grad()
        model(image[None]).square().sum().backward()
        torch.testing.assert_close(gradient, model[0].weight.grad)


def test_several_models_at_once_by_torch_func():
    models = [nn.Sequential(nn.Conv2d(3, 4, 3), FeatureWhitening(4)) for _ in range(3)]
    images = torch.randn(8, 3, 6, 6)
    for model in models:
        model(images)
        model.eval()
    weights, buffers = stack_module_state(models)
    found = vmap(lambda *state: functional_call(models[0], state, (images,)))(weights, buffers)
    torch.testing.assert_close(found, torch.stack([model(images) for model in models]))


def test_views_of_one_tensor_are_told_apart():
    models = [FeatureWhitening(4) for _ in range(3)]
    images = correlated(2, 4, 3, 3)
    for scale, model in enumerate(models, 1):
        model(images * scale)
        model.eval()
    _, buffers = stack_module_state(models)
    stacked = {name: value for name, value in buffers.items() if name != "transform"}
    for place, model in enumerate(models):
        given = {name: value[place] for name, value in stacked.items()}
        found = functional_call(models[0], given | dict(model.named_parameters()), (images,))
        torch.testing.assert_close(found, model(images))
    turned = models[0]
    turned.set_rotation(torch.linalg.qr(torch.randn(4, 4))[0])
    turned(images)
    turned.rotation = turned.rotation.T
    expected = turned(images)
    turned.refresh()
    torch.testing.assert_close(expected, turned(images))


def test_fx_traces_a_model_with_the_layer_as_a_leaf():
    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return isinstance(module, FeatureWhitening) or super().is_leaf_module(module, name)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), FeatureWhitening(4)).eval()
    images = torch.randn(2, 3, 6, 6)
    traced = torch.fx.GraphModule(model, Tracer().trace(model))
    torch.testing.assert_close(traced(images), model(images))


@pytest.mark.parametrize(("interval", "low", "high"), [(1, 0.9, 1.1), (10, 2, 4)])
def test_amortized_training_amplifies_what_leaves_the_rank_of_the_features(interval, low, high):
    """Sixteen channels from four, one step of AdamW: a known limit, of which the docstring warns."""
    torch.manual_seed(0)
    layer = FeatureWhitening(16, whiten_every=interval, shrinkage=0.02)
    model = nn.Sequential(nn.Conv2d(4, 16, 1, bias=False), layer)
    images, weights = torch.rand(16, 4, 8, 8), torch.randn(16)
    update_statistics(model, layer, [images] * 30)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    before = model(images)
    functional.logsigmoid(before.mean((2, 3)) @ weights).mean().backward()
    optimizer.step()
    assert low < model(images).std() / before.std() < high


def test_two_forwards_before_a_backward():
    """As in gradient accumulation; a new matrix comes in between."""
    layer = FeatureWhitening(4, whiten_every=2)
    copies = [copy.deepcopy(layer), layer]
    batches = [correlated(2, 4, 3, 3) for _ in range(3)]
    for batch in batches:
        copies[0](batch).pow(2).sum().backward()
    sum(layer(batch).pow(2).sum() for batch in batches).backward()
    torch.testing.assert_close(layer.weight.grad, copies[0].weight.grad)


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_model_in_half_precision_keeps_its_statistics(dtype, interval):
    layer = FeatureWhitening(4, whiten_every=interval, act=nn.PReLU())
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer).to(dtype)
    tensors = [layer.weight, *(value for value in layer.buffers() if value.is_floating_point())]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert layer.act.weight.dtype == model[0].weight.dtype == dtype
    images = torch.randn(8, 3, 4, 4, dtype=dtype)
    assert model(images).dtype == dtype
    before = layer.running_covariance.clone()
    assert model.eval().to(dtype)(images).isfinite().all()
    assert torch.equal(layer.running_covariance, before)


def test_frozen_norm_stays_frozen():
    norm = nn.BatchNorm2d(4).requires_grad_(False)
    layer = FeatureWhitening.from_batch_norm(norm)
    assert not layer.weight.requires_grad and not layer.bias.requires_grad


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("rows", [2, 12])
@pytest.mark.parametrize("solver", CONVERGED)
def test_gradient_of_parameters_and_with_few_locations(solver, rows, mode):
    """Fewer locations than channels, and more."""
    layer = FeatureWhitening(4, solver=solver, shrinkage=0.1).double().train(mode)
    features = torch.randn(rows, 4, 1, 1, dtype=torch.float64, requires_grad=True)

    def apply(features, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (features,))

    inputs = features, layer.weight, layer.bias
    assert torch.autograd.gradcheck(apply, inputs)


# --- whiteness in training


@settings(max_examples=25)
@given(
    solver=st.sampled_from(CONVERGED),
    groups=st.integers(1, 3),
    size=st.integers(2, 64),
    exponent=st.floats(0, 6),
    one_factor=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
@example("eigh", 2, 2, 5.875, False, torch.float16, 2)
@example("eigh", 1, 64, 6, True, torch.float32, 0)
@example("cholesky", 1, 64, 6, True, torch.float32, 0)
@example("newton_schulz", 1, 64, 6, True, torch.float32, 0)
def test_training_output_is_white(solver, groups, size, exponent, one_factor, dtype, seed):
    """Any number of groups, any condition number up to 1e6, any dtype of the features.

    One common factor, and all else of variance 1, is the hardest.
    """
    generator = torch.Generator().manual_seed(seed)
    scales = 10 ** (exponent * torch.linspace(0, 0.5, size))
    if one_factor:
        scales[:-1] = 1
    vectors = torch.linalg.qr(torch.randn(groups, size, size, generator=generator))[0]
    normal = torch.randn(8, groups * size, 8, 8, generator=generator)
    mixing = torch.block_diag(*vectors) * scales.repeat(groups)
    features = torch.einsum("dc,nchw->ndhw", mixing, normal).to(dtype)
    layer = FeatureWhitening(groups * size, groups, eps=1e-7, solver=solver)
    output = layer(features)
    assert output.dtype == dtype
    assert output.float().mean((0, 2, 3)).abs().max() < 0.01
    for block in output.float().unflatten(1, (groups, size)).unbind(1):
        found = whiteness(block)
        assert found["mean_correlation"] < 0.01
        assert found["mean_variance"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("solver", CONVERGED)
def test_fewer_locations_than_channels_agree_in_training_and_evaluation(solver, groups):
    # With momentum 1 the running covariance is the batch's own, times M / (M - 1).
    layer = FeatureWhitening(32, groups, eps=1e-8, momentum=1.0, solver=solver).double()
    layer.set_rotation(torch.linalg.qr(torch.randn(32, 32))[0])
    features = correlated(1, 32, 3, 3, dtype=torch.float64)
    output = layer.train()(features)
    torch.testing.assert_close(
        layer.eval()(features) * (9 / 8) ** 0.5, output, atol=1e-6, rtol=1e-6
    )


def test_whiteness_by_mode_tells_the_batch_from_the_running_statistics():
    layer = FeatureWhitening(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.ReLU()).train()
    model(torch.randn(8, 3, 6, 6))
    layer.refresh()  # as on leaving training
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = whiteness_by_mode(model, layer, 3 + torch.randn(8, 3, 6, 6))
    measures = whiteness(torch.rand(9, 4))
    assert set(found) == {f"{mode}_{name}" for mode in ("train", "eval") for name in measures}
    assert found["train_mean_correlation"] < found["eval_mean_correlation"]
    assert model.training and layer.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
