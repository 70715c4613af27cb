//! Recipes are checked by themselves and against the checkpoint.

use mote_import::{Digest, Recipe, RecipeDimension, RecipeError, SMOLLM2_135M_MOE_RECIPE};

use super::tiny::{Checkpoint, EXPERTS, HIDDEN, NEURONS, RecipeParts, SEED};

fn parts() -> RecipeParts {
    eprintln!("seed {SEED}");
    RecipeParts::new(&Checkpoint::new().file.bytes())
}

fn refusal(parts: &RecipeParts) -> RecipeError {
    Recipe::parse(&parts.bytes()).expect_err("the recipe must be refused")
}

#[test]
fn a_valid_recipe_keeps_its_numbers() {
    let parts = parts();
    let bytes = parts.bytes();
    let recipe = Recipe::parse(&bytes).expect("the recipe is valid");
    assert_eq!(recipe.shape().neurons(), NEURONS);
    assert_eq!(recipe.shape().experts_per_token, 1);
    assert_eq!(recipe.router_temperature(), 0.5);
    assert_eq!(recipe.digest(), Digest::of(&bytes));
    for (layer, (order, router)) in recipe
        .layers()
        .iter()
        .zip(parts.permutations.iter().zip(&parts.routers))
    {
        assert_eq!((&layer.permutation, &layer.router), (order, router));
    }
}

#[test]
fn the_bundled_recipe_is_valid() {
    let recipe = Recipe::parse(SMOLLM2_135M_MOE_RECIPE).expect("the bundled recipe is valid");
    let shape = recipe.shape();
    assert_eq!(
        (shape.shared_neurons, shape.experts, shape.expert_neurons),
        (512, 8, 128)
    );
    assert_eq!(recipe.layers().len(), 30);
    assert_eq!(recipe.layers()[0].router.len(), 8 * 576);
    assert!(SMOLLM2_135M_MOE_RECIPE.len() < 6 << 20, "it is in git");
}

#[test]
fn metadata_must_be_complete_and_possible() {
    for key in [
        "format",
        "source_sha256",
        "shared_neurons",
        "experts",
        "expert_neurons",
        "experts_per_token",
        "router_temperature",
    ] {
        assert!(matches!(
            refusal(&parts().without(key)),
            RecipeError::MissingMetadata { key: found } if found == key
        ));
    }
    for (key, value) in [
        ("experts", "0"),
        ("experts", "99999999999999999999"),
        ("experts_per_token", "3"),
        ("experts_per_token", "-1"),
        ("router_temperature", "NaN"),
        ("router_temperature", "0"),
        ("router_temperature", "1e30"),
        ("source_sha256", "abc"),
    ] {
        assert!(
            matches!(
                refusal(&parts().set(key, value)),
                RecipeError::Metadata { key: found, .. } if found == key
            ),
            "{key}={value}"
        );
    }
    assert!(matches!(
        refusal(&parts().set("format", "mote-carve-9")),
        RecipeError::Format { found } if found == "mote-carve-9"
    ));
}

#[test]
fn permutations_must_name_every_neuron_once() {
    let spoil = |change: fn(&mut Vec<u16>)| {
        let mut parts = parts();
        change(&mut parts.permutations[1]);
        refusal(&parts)
    };
    for error in [
        spoil(|order| order[5] = order[6]),
        spoil(|order| order[0] = NEURONS as u16),
        spoil(|order| order[0] = u16::MAX),
    ] {
        assert!(matches!(
            error,
            RecipeError::NotPermutation { tensor } if tensor == "layers.1.permutation"
        ));
    }
    assert!(matches!(
        spoil(|order| {
            order.pop();
        }),
        RecipeError::TensorShape { tensor, .. } if tensor == "layers.1.permutation"
    ));
}

#[test]
fn routers_must_be_finite_and_of_one_shape() {
    let mut spoilt = parts();
    spoilt.routers[1][7] = f32::INFINITY;
    assert!(matches!(
        refusal(&spoilt),
        RecipeError::NotFinite { tensor } if tensor == "layers.1.router"
    ));
    let mut narrow = parts();
    narrow.routers[1].truncate((EXPERTS - 1) * HIDDEN);
    assert!(matches!(
        refusal(&narrow),
        RecipeError::TensorShape { tensor, .. } if tensor == "layers.1.router"
    ));
}

#[test]
fn a_recipe_cuts_at_least_one_layer() {
    let mut none = parts();
    none.permutations.clear();
    assert!(matches!(
        refusal(&none),
        RecipeError::LayerCount { layers: 0 }
    ));
}

#[test]
fn garbage_is_refused() {
    let bytes = parts().bytes();
    for spoilt in [&b""[..], b"{}", &bytes[..bytes.len() / 2], &[0xff; 64]] {
        assert!(matches!(Recipe::parse(spoilt), Err(RecipeError::Parse(_))));
    }
}

#[test]
fn a_recipe_serves_only_its_own_checkpoint() {
    use mote_import::{checkpoint::LayerSource, checkpoint::open_gguf, gguf::Gguf};
    let checkpoint = Checkpoint::new();
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let gguf = Gguf::open(&checkpoint.file.write(&folder)).expect("the file is sound");
    let source = open_gguf(&gguf).expect("the checkpoint is sound");
    let digest = Digest::of(&checkpoint.file.bytes());
    let recipe = Recipe::parse(&parts().bytes()).expect("the recipe is valid");
    assert!(recipe.check(digest, source.config()).is_ok());
    assert!(matches!(
        recipe.check(Digest::of(b"other"), source.config()),
        Err(RecipeError::OtherSource { .. })
    ));
    let mut wider = source.config().clone();
    wider.hidden += 32;
    assert!(matches!(
        recipe.check(digest, &wider),
        Err(RecipeError::Dimension {
            what: RecipeDimension::Hidden,
            ..
        })
    ));
}

#[test]
fn experts_per_token_can_be_overridden_within_the_experts() {
    let recipe = Recipe::parse(&parts().bytes()).expect("the recipe is valid");
    for asked in [0, EXPERTS + 1] {
        assert!(matches!(
            recipe.clone().with_experts_per_token(asked),
            Err(RecipeError::ExpertsPerToken { asked: found, experts: EXPERTS }) if found == asked
        ));
    }
    let all = recipe
        .with_experts_per_token(EXPERTS)
        .expect("all experts are allowed");
    assert_eq!(all.shape().experts_per_token, EXPERTS);
}
