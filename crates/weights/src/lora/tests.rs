//! Files of every format against the differences that PEFT, diffusers or the published formula make.
