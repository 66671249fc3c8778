import pytest
import torch

from graft.inputs.audio.augment import (
    BANDS,
    FRAMES,
    GAIN,
    SNR,
    SpeechAugmentation,
    mu_law,
    random_range,
    shift_babble,
    shift_noise,
    shift_telephone,
    shift_telephone_8bit,
    with_noise,
)

RATE = 8000


def sine(hertz):
    return torch.sin(2 * torch.pi * hertz * torch.arange(RATE) / RATE)[None]


def decibels(power):
    return 10 * torch.log10(power)


@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_noise_is_as_far_below_the_speech_as_asked(snr):
    clips, lengths = torch.zeros(1, 2 * RATE), torch.tensor([RATE])
    clips[:, :RATE] = sine(440)
    torch.manual_seed(0)
    noise = with_noise(clips, lengths, torch.randn(clips.shape), torch.tensor([snr])) - clips
    ratio = decibels(clips[:, :RATE].square().mean()) - decibels(noise.square().mean())
    assert abs(ratio - snr) < 0.3


def test_silence_stays_silent():
    silence, lengths = torch.zeros(2, 100), torch.tensor([100, 0])
    assert not SpeechAugmentation(masks=False).waves(silence, lengths).any()
    assert not shift_noise(silence, lengths, RATE).any()


def test_gain_and_noise_are_drawn_for_each_clip_within_their_limits():
    torch.manual_seed(0)
    clips = sine(440).repeat(200, 1)
    changed = SpeechAugmentation(masks=False).waves(clips, torch.full((200,), RATE))
    amplitude = (changed * clips).mean(1) / clips.square().mean(1)
    noise = (changed - amplitude[:, None] * clips).square().mean(1)
    noisy = noise > 1e-9
    assert 70 < noisy.sum() < 130
    gain, snr = 20 * amplitude.log10(), decibels(amplitude.square() * 0.5 / noise)[noisy]
    for values, (low, high) in ((gain, GAIN), (snr, SNR)):
        assert values.min() > low - 0.5
        assert values.max() < high + 0.5
        assert values.std() > 0.25 * (high - low) * 0.9


def test_masks_hide_ranges_of_bands_and_frames_behind_the_mean():
    torch.manual_seed(0)
    spectrograms = torch.randn(300, 1, 80, 50)
    masked = SpeechAugmentation(masks=True).masked(spectrograms, frequency_dim=2)
    mean = spectrograms.mean((2, 3), keepdim=True)
    hidden = (masked == mean).squeeze(1)
    assert torch.equal(masked[~hidden[:, None]], spectrograms[~hidden[:, None]])
    bands, frames = hidden.all(2), hidden.all(1)
    assert torch.equal(hidden, bands[:, :, None] | frames[:, None, :])
    assert bands.sum(1).max() <= 2 * BANDS * 80
    assert frames.sum(1).max() <= 2 * FRAMES * 50
    assert bands.any(0).all()
    assert frames.any(0).all()


def test_frequency_may_be_the_last_dimension():
    torch.manual_seed(0)
    spectrograms = torch.randn(4, 50, 80)
    torch.manual_seed(0)
    masked = SpeechAugmentation(masks=True).masked(spectrograms, frequency_dim=2)
    torch.manual_seed(0)
    turned = SpeechAugmentation(masks=True).masked(spectrograms.transpose(1, 2), frequency_dim=1)
    torch.testing.assert_close(masked, turned.transpose(1, 2))


def test_ranges_have_every_width_up_to_their_share():
    torch.manual_seed(0)
    assert set(random_range(1000, 20, 0.2).sum(1).tolist()) == {0, 1, 2, 3, 4}


def test_a_telephone_lets_its_band_through():
    clips = torch.cat([sine(100), sine(1000), sine(3800)])
    heard = shift_telephone(clips, torch.full((3,), RATE), RATE)
    torch.testing.assert_close(heard[1], clips[1], atol=1e-3, rtol=0)
    assert heard[[0, 2]].abs().max() < 1e-2


def test_the_noise_shift_is_ten_decibels_below():
    clips = sine(1000)
    noise = shift_noise(clips, torch.tensor([RATE]), RATE) - clips
    assert abs(decibels(clips.square().mean()) - decibels(noise.square().mean()) - 10) < 0.3


def test_babble_is_others_speech_and_the_same_whatever_else_is_in_the_batch():
    random = torch.Generator().manual_seed(0)
    others = [torch.randn(length, generator=random) for length in (500, 700, 300, 900, 20)]
    clips, lengths = torch.zeros(2, 1000), torch.tensor([700, 500])
    clips[0, :700], clips[1, :500] = others[1], others[0]
    heard = shift_babble(clips, lengths, RATE, others, snr=0.0)
    for number in range(2):
        noise = heard[number] - clips[number]
        power = clips[number].square().sum() / lengths[number]
        torch.testing.assert_close(noise.square().mean(), power)
    torch.testing.assert_close(shift_babble(clips[1:], lengths[1:], RATE, others, snr=0.0)[0], heard[1])
    voices = [one / one.square().mean().sqrt() for one in (others[0], *others[2:])]  # all but the clip's own
    total = torch.stack([voice.repeat(60)[:1000] for voice in voices]).sum(0)
    noise = heard[0] - clips[0]
    torch.testing.assert_close(noise / noise.norm(), total / total.norm(), atol=1e-5, rtol=1e-4)
    assert torch.equal(shift_babble(clips[:1], lengths[:1], RATE, [others[1]]), clips[:1])  # nobody else is there


def test_mu_law_has_256_steps_which_are_small_where_it_is_quiet():
    samples = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    heard = mu_law(samples)
    assert len(heard.unique()) == 256
    steps = torch.arange(256, dtype=torch.float64) / 255 * 2 - 1
    levels = steps.sign() * (256 ** steps.abs() - 1) / 255
    squeezed = samples.sign() * torch.log(1 + 255 * samples.abs()) / torch.log(torch.tensor(256.0, dtype=torch.float64))
    expected = levels[((squeezed[:, None] - steps).abs().argmin(1))]
    off = (heard - expected).abs() > 1e-9
    assert off.sum() <= 4  # in the middle between two steps
    torch.testing.assert_close(mu_law(heard), heard)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_digital_telephone_is_the_old_one_with_steps(rate):
    clips = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(rate) / rate)[None]
    lengths = torch.tensor([rate])
    heard = shift_telephone_8bit(clips, lengths, rate)
    error = heard - shift_telephone(clips, lengths, rate)
    assert heard.shape == clips.shape
    assert 30 < decibels(clips.square().mean() / error.square().mean()) < 45  # as G.711's 38 dB
