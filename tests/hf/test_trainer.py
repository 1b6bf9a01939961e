"""transformers' Trainer and SentenceTransformerTrainer train our classes, step for step as their own."""

import pytest
import torch
import transformers
from hf.conftest import NAMES, OURS

import modernbert.hf
from modernbert.checkpoint.folder import load_model
from modernbert.checkpoint.modules import Modules, save_sentence_transformer
from modernbert.model.heads import Embedder
from modernbert.text.tokenizer import Tokenizer

STEPS = 8
CURVE = 1e-4  # the project's promise for 50 steps; found here: 4e-6

QUIETLY = {
    "learning_rate": 1e-3,
    "adam_epsilon": 1e-4,  # with 1e-8, Adam turns gradients of 1e-9 that differ in sign into steps of 1e-3
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "seed": 0,
}
"""How both trainers run."""


def rows(name):
    """Sixteen rows of several lengths with their labels, the same each time."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(16):
        ids = torch.randint(340, (3 + 5 * (i % 4),), generator=generator).tolist()
        if name.endswith("SequenceClassification"):
            label = i % 3
        elif name.endswith("TokenClassification"):
            label = [id % 3 for id in ids]
        else:
            label = [id if id % 3 == 0 else -100 for id in ids]
        made.append({"input_ids": ids, "labels": label})
    return made


def train(module, name, folder, out, *, batch=4, accumulate=1, steps=STEPS):
    """The losses of a run, and the model."""
    model = getattr(module, name).from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    collate = transformers.DataCollatorForTokenClassification(tokenizer)
    if name.endswith("SequenceClassification"):
        collate = transformers.DataCollatorWithPadding(tokenizer)
    arguments = transformers.TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        **QUIETLY,
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows(name), data_collator=collate)
    trainer.train()
    return torch.tensor([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]), trainer


HEADS = ["ModernBertForMaskedLM", "ModernBertForSequenceClassification", "ModernBertForTokenClassification"]


@pytest.mark.parametrize("name", HEADS)
def test_the_loss_curve_is_that_of_transformers_own_class(name, folder_of, tmp_path):
    folder = folder_of(name, NAMES if "Token" in name else None)
    ours, trainer = train(modernbert.hf, name, folder, tmp_path / "ours")
    theirs, _ = train(transformers, name, folder, tmp_path / "theirs")
    assert len(ours) == STEPS and ours.std() > 0.01  # it learns something, so that there is something to compare
    torch.testing.assert_close(ours, theirs, atol=CURVE, rtol=0)
    trainer.save_model(str(tmp_path / "saved"))
    assert type(getattr(transformers, name).from_pretrained(tmp_path / "saved")).__name__ == name


@pytest.mark.parametrize("name", HEADS)
def test_accumulated_steps_are_one_large_step(name, folder_of, tmp_path):
    folder = folder_of(name, NAMES if "Token" in name else None)
    whole, _ = train(modernbert.hf, name, folder, tmp_path / "whole", steps=3)
    parts, _ = train(modernbert.hf, name, folder, tmp_path / "parts", batch=2, accumulate=2, steps=3)
    torch.testing.assert_close(parts, whole, atol=CURVE, rtol=0)


def test_every_head_has_gradients_for_every_weight(folder_of):
    from hf.test_models import labels_for, padded

    for name in OURS:
        model = getattr(modernbert.hf, name).from_pretrained(folder_of(name))
        inputs = padded("right")
        labels = labels_for(name, inputs)
        if name.endswith("MultipleChoice"):
            inputs = {key: value.unflatten(0, (2, 2)) for key, value in inputs.items()}
        out = model(**inputs, **labels)
        (out.loss if labels else out.last_hidden_state.square().mean()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()), name


def contrastive_losses(folder, out):
    """The losses of sentence-transformers' own trainer, and the class that it trained."""
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    datasets = pytest.importorskip("datasets")
    words = ["walk", "store", "café", "return", "minute", "week", "seven"]
    pairs = [{"anchor": f"{words[i % 7]} {words[i % 5]}", "positive": " ".join(words[i % 3 : 7 - i % 4])} for i in range(32)]
    model = SentenceTransformer(str(folder), device="cpu")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        **QUIETLY,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(pairs),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return torch.tensor(losses), type(model[0].auto_model)


def test_sentence_transformers_trainer_has_the_same_curve_with_our_class(tiny_folder, tmp_path, request):
    encoder = load_model(Embedder, tiny_folder)
    save_sentence_transformer(encoder, encoder.config, tmp_path / "st", Modules(), tokenizer=Tokenizer.load(tiny_folder))
    theirs, their_class = contrastive_losses(tmp_path / "st", tmp_path / "theirs")
    request.getfixturevalue("registered")
    ours, our_class = contrastive_losses(tmp_path / "st", tmp_path / "ours")
    assert (their_class, our_class) == (transformers.ModernBertModel, modernbert.hf.ModernBertModel)
    assert len(ours) == STEPS and ours.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=CURVE, rtol=0)
