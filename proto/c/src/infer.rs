//! Tensors in, tensors out.

use crate::call::{Out, call, give};
use crate::client::{MoteClient, client};
use crate::door::Given;
use crate::error::MoteError;
use crate::failure::Failure;
use crate::options::options;
use crate::receipt::MoteReceipt;
use crate::result::MoteResult;
use crate::structs::InferArgs;
use crate::tensor::{inputs, targets};

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_infer(
    given: Option<&MoteClient>,
    args: Given<'_, InferArgs<'_>>,
    result: Out<'_, MoteResult>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        let run = || infer(given, args);
        match result {
            None => run().map(drop),
            result => give(result, "result", run),
        }
    })
}

fn infer(
    given: Option<&MoteClient>,
    args: Given<'_, InferArgs<'_>>,
) -> Result<MoteResult, Failure> {
    let client = client(given)?;
    let args = args.required("args")?;
    let model = args.model.required("model")?;
    let given = args.inputs.take(args.input_count, "inputs")?;
    let wanted = args.targets.take(args.target_count, "targets")?;
    let (inputs, outputs) = (inputs(given)?, targets(wanted)?);
    let result = client.infer(model, &inputs, &outputs, &options(args.options)?)?;
    let receipt = MoteReceipt::new(result.done.receipt);
    Ok(MoteResult::new(result.outputs, wanted).of_run(receipt))
}
