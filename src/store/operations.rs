//! What was done to refs and the work tree, so that it can be taken back.

use super::StoreError;
use super::journal::State;
use crate::format::FormatError;
use crate::format::journal::Op;
use crate::format::operation::{
    LAST_OPERATION_KEY, OPERATION_PREFIX, decode_operation, encode_operation, operation_key,
};
use crate::format::staging::decode_counter;
use crate::model::operation::{OPERATIONS_KEPT, Operation};

fn in_journal(source: FormatError) -> StoreError {
    StoreError::Format { subject: "journal".to_owned(), source }
}

fn last_number(state: &State) -> Result<u64, StoreError> {
    state.get(LAST_OPERATION_KEY)?.map_or(Ok(0), |value| decode_counter(value).map_err(in_journal))
}

/// The operations that record one more; the oldest that is kept gives way.
pub fn record_ops(state: &State, mut operation: Operation) -> Result<Vec<Op>, StoreError> {
    operation.number = last_number(state)? + 1;
    let number = operation.number;
    let mut ops = vec![
        Op::Put(operation_key(number), encode_operation(&operation)),
        Op::Put(LAST_OPERATION_KEY.to_vec(), number.to_le_bytes().to_vec()),
    ];
    ops.extend(number.checked_sub(OPERATIONS_KEPT).map(|old| Op::Delete(operation_key(old))));
    Ok(ops)
}

/// The operation with which an operation is recorded anew.
pub fn update_op(operation: &Operation) -> Op {
    Op::Put(operation_key(operation.number), encode_operation(operation))
}

/// The operation that forgets one.
pub fn forget_op(operation: &Operation) -> Op {
    Op::Delete(operation_key(operation.number))
}

/// All that are kept, the last first.
pub fn list(state: &State) -> Result<Vec<Operation>, StoreError> {
    let mut scan = state.scan_back(OPERATION_PREFIX, None)?;
    let mut found = Vec::new();
    while let Some((_, value)) = scan.next()? {
        found.push(decode_operation(value).map_err(in_journal)?);
    }
    Ok(found)
}

/// The last one.
pub fn last(state: &State) -> Result<Option<Operation>, StoreError> {
    let last = state.last(OPERATION_PREFIX)?;
    last.map(|(_, value)| decode_operation(value).map_err(in_journal)).transpose()
}
