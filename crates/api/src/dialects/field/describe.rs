//! What each kind of field, and each kind of default, says of itself in the documentation.

use super::{
    Address, Anything, Choice, Describe, FieldDescription, Flag, Image, Images, Label, ListOf, Name, Names,
    Number, Numbers, ObjectOf, Only, Otherwise, Required, Text, Whole, describe,
};

impl Describe for Required {
    fn describe(&self, description: &mut FieldDescription) {
        description.required = true;
    }
}

impl Describe for Otherwise {
    fn describe(&self, description: &mut FieldDescription) {
        description.otherwise = Some(self.0);
    }
}

/// Plain values are their own description.
macro_rules! plain_defaults {
    ($($kind:ty),+) => {
        $(impl Describe for $kind {
            fn describe(&self, description: &mut FieldDescription) {
                description.default = Some((*self).into());
            }
        })+
    };
}

plain_defaults!(bool, i64, f64, &'static str);

#[expect(
    clippy::cast_precision_loss,
    reason = "bounds are far below 2^53, or exactly that"
)]
const fn float(bound: i64) -> f64 {
    bound as f64
}

#[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
fn at_most(description: &mut FieldDescription, count: usize, unit: &'static str) {
    description.maximum = Some(count as f64);
    description.unit = Some(unit);
}

impl<D: Describe> Describe for Text<D> {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "text";
        at_most(description, self.max_chars, "characters");
        self.default.describe(description);
    }
}

impl<D: Describe> Describe for Name<D> {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "name";
        self.default.describe(description);
    }
}

impl Describe for Names {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "names";
        at_most(description, self.max, "items");
        Otherwise("none").describe(description);
    }
}

impl<D: Describe> Describe for Whole<D> {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "integer";
        description.minimum = Some(float(*self.range.start()));
        description.maximum = Some(float(*self.range.end()));
        self.default.describe(description);
    }
}

impl<D: Describe> Describe for Number<D> {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "number";
        description.minimum = Some(*self.range.start());
        description.maximum = Some(*self.range.end());
        self.default.describe(description);
    }
}

impl Describe for Numbers {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "numbers";
        description.minimum = Some(*self.range.start());
        description.maximum = Some(*self.range.end());
        self.default.describe(description);
    }
}

impl Describe for Flag {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "flag";
        self.default.describe(description);
    }
}

impl<D: Describe> Describe for Choice<D> {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "choice";
        description.choices = self.words;
        self.default.describe(description);
    }
}

impl<D: Describe> Describe for Image<D> {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = if self.address { "image or address" } else { "image" };
        at_most(description, self.max_bytes, "bytes");
        self.default.describe(description);
    }
}

impl Describe for Images {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "images";
        at_most(description, self.max, "items");
        description.required = true;
    }
}

impl Describe for Only {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "only";
        description.choices = self.values;
        Otherwise("the same").describe(description);
    }
}

impl Describe for Address {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "address";
        at_most(description, self.max_bytes, "bytes");
        Otherwise("none").describe(description);
    }
}

impl<D: Describe> Describe for Label<D> {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "label";
        at_most(description, self.max_bytes, "bytes");
        self.default.describe(description);
    }
}

impl Describe for ListOf {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "list";
        at_most(description, self.max, "items");
        description.members = describe(&[self.members]);
        Otherwise("none").describe(description);
    }
}

impl Describe for ObjectOf {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "object";
        description.members = describe(&[self.members]);
        Otherwise("the defaults of its members").describe(description);
    }
}

impl Describe for Anything {
    fn describe(&self, description: &mut FieldDescription) {
        description.kind = "anything";
        Otherwise("nothing").describe(description);
    }
}
