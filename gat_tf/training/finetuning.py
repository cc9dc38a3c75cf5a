"""Fine-tuning of Rob-GAN's classifier: eq. 10 of its paper."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from gat_tf import checks
from gat_tf.attacks import Attack, norms
from gat_tf.attacks.base import require_untargeted
from gat_tf.gradients import ClassifierPass, classifier_pass
from gat_tf.models import sampling
from gat_tf.training.base import Scheme, added, require_built
from gat_tf.training.classifier_base import ClassifierScheme, Outcome, outcome
from gat_tf.training.gan import check_networks, draw, step_counter


@keras.saving.register_keras_serializable("gat_tf")
class FineTuning(ClassifierScheme):
    """Trains a classifier on attacked real images and attacked generated ones (eq. 10).

    Lowers J(x_adv) over real images plus λ times J(x_adv) over as many fakes of uniform classes.
    The paper's rival and two controls are the same scheme:

    - A new classifier with λ = 0: adversarial training, eq. 3 (Madry et al. 2018).
    - The class head with λ = 0: fine-tuning without fakes.
    - A new classifier with λ > 0: eq. 6, fakes as more training data; with `fake_images`, of a
      fixed number.

    Paper: [Liu and Hsieh 2019](https://arxiv.org/abs/1807.10454).

    Args:
        classifier: f, a Keras model from images `[B, H, W, C]` within the attack's `clip` to
            `[B, K]`.
        generator: G, a Keras model from `[noise, labels]` to images within `clip`; it is not
            changed. None where λ is 0.
        attack: The attack that makes x_adv; the authors' is
            `PGD(0.03125, math.inf, 5, step_size=0.00625, random_start=False, clip=(-1, 1))`.
        fake_weight: λ, not negative. 0.3 in the paper's code.
        statistics: What G's batch norm uses: `"batch"`, as in the paper's code, the statistics of
            the fakes of a step, on each device its own; `"moving"`, those of the generator (see
            `models.with_fixed_statistics`).
        fake_images: The number of different pairs of noise and class that fakes are made from, each
            step's drawn with replacement; by default every step has new ones. With
            `statistics="moving"` it is the number of different images.
        from_logits: Whether the classifier gives logits, as `models.class_head` does.
        seed: Seed of noise, classes and the attack's random choices.

    Raises:
        ValueError: λ is negative, or positive without a generator; `from_logits` or the generator's
            images do not fit the classifier; or `statistics` or `fake_images` is not as described
            above.
        TypeError: The attack is not an `Attack`, or the classifier is not a Keras model.

    Examples:
        >>> attack = attacks.PGD(
        ...     1 / 32, math.inf, 5, step_size=1 / 160, random_start=False, clip=(-1, 1)
        ... )
        >>> classifier = models.class_head(discriminator)
        >>> scheme = training.FineTuning(classifier, image_generator, attack, fake_weight=0.3)
        >>> scheme.compile(keras.optimizers.Adam(1e-3))
        >>> history = scheme.fit(centred_dataset, epochs=1, verbose=0)
    """

    _arguments = (
        "classifier",
        "generator",
        "attack",
        "fake_weight",
        "statistics",
        "fake_images",
        "from_logits",
        *Scheme._arguments,
    )
    _recorded = (
        "loss",  # eq. 10
        "adversarial_loss",  # its first term
        "adversarial_accuracy",  # on real images
        "fake_loss",  # its second term, before λ
        "fake_accuracy",
        "power",
    )

    def __init__(
        self,
        classifier: keras.Model,
        generator: keras.Model | None,
        attack: Attack,
        fake_weight: float = 0.3,
        *,
        statistics: str = "batch",
        fake_images: int | None = None,
        from_logits: bool = True,
        seed: int = 0,
        name: str | None = None,
    ):
        if not isinstance(attack, Attack):
            raise TypeError(f"Expected an attack from gat_tf.attacks. Received: {attack!r}")
        require_untargeted(attack)
        bounds = attack.clip or (0.0, 1.0)
        super().__init__(classifier, bounds, from_logits=from_logits, seed=seed, name=name)
        self.attack = attack
        self.fake_weight = checks.number("fake_weight", fake_weight, low=0)
        self.generator = generator
        checks.one_of("statistics", statistics, sampling.STATISTICS)
        self.statistics = statistics
        self.fake_images = fake_images
        if fake_images is not None:
            checks.count("fake_images", fake_images)
        if self.fake_weight:
            _check_generator(generator, classifier, self.num_classes)
            if fake_images is not None:
                shape = fake_images, sampling.latent_size(generator)
                self._noise = tf.random.stateless_normal(shape, (self.seed, 0))
        self.steps = step_counter(self)

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels = self._unpacked(data)
        real, perturbation = self._pass(images, labels, self._step_seed())
        gradients = real.weight_gradients
        if self.fake_weight:
            fakes, fake_labels = self._fakes(images, self.steps)
            seed = tf.random.fold_in(self._step_seed(), 1)
            fake, _ = self._pass(fakes, fake_labels, seed)
            weighted = [None if g is None else self.fake_weight * g for g in fake.weight_gradients]
            gradients = added(gradients, weighted)
        else:
            fake = real
        self._apply_mean(self.optimizer, self.classifier, gradients, images)
        self.steps.assign_add(1)
        return self._recorded_of(real, fake, perturbation)

    def test_step(self, data: Any) -> dict[str, Any]:
        """The same noise and classes in every batch."""
        images, labels = self._unpacked(data)
        real, perturbation = self._inference(images, labels)
        fake = self._inference(*self._fakes(images, -1))[0] if self.fake_weight else real
        return self._recorded_of(real, fake, perturbation)

    def _pass(
        self, images: tf.Tensor, labels: tf.Tensor, seed: int
    ) -> tuple[ClassifierPass, tf.Tensor]:
        perturbation = self.attack.perturb(self._logits, images, labels, seed)
        attacked = self.attack.apply(images, perturbation)
        scale = self.optimizer.scale_loss(1.0)
        return classifier_pass(self._logits, attacked, labels, False, scale), perturbation

    def _inference(self, images, labels):
        perturbation = self.attack.perturb(self._logits, images, labels, (self.seed, 0))
        z = self._logits(self.attack.apply(images, perturbation))
        return outcome(z, labels), perturbation

    def _step_seed(self):
        return self._seed_of(self.steps)

    def _fakes(self, images, step):
        seed = tf.stack([self.seed, tf.convert_to_tensor(step)])
        if self.fake_images is None:
            size = sampling.latent_size(self.generator)
            noise, labels = draw(images, size, self.num_classes, seed)
        else:
            _, places = draw(images, 0, self.fake_images, seed)
            noise, labels = tf.gather(self._noise, places), places % self.num_classes
        fakes = sampling.images_of(self.generator, noise, labels, self.statistics)
        return tf.cast(fakes, images.dtype), labels

    def _recorded_of(
        self,
        real: Outcome | ClassifierPass,
        fake: Outcome | ClassifierPass,
        perturbation: tf.Tensor,
    ) -> dict:
        return self._record(
            loss=real.loss + self.fake_weight * fake.loss,
            adversarial_loss=real.loss,
            adversarial_accuracy=real.correct,
            fake_loss=fake.loss,
            fake_accuracy=fake.correct,
            power=norms.power(perturbation),
        )


def _check_generator(generator: keras.Model, classifier: keras.Model, num_classes: int) -> None:
    if not isinstance(generator, keras.Model):
        raise ValueError(
            f"Expected a generator, a Keras model, because λ is not 0. Received: {generator!r}"
        )
    require_built(generator)
    sampling.latent_size(generator)
    check_networks(classifier.input_shape[1:], generator, num_classes)
