//! What was done to refs and the work tree, so that it can be taken back.

use super::journal::State;
use super::{StoreError, counter, counter_op};
use crate::format::journal::Op;
use crate::format::operation::{
    LAST_OPERATION_KEY, OPERATION_PREFIX, decode_operation, encode_operation, operation_key,
};
use crate::model::operation::{OPERATIONS_KEPT, Operation};

fn last_number(state: &State) -> Result<u64, StoreError> {
    counter(state, LAST_OPERATION_KEY)
}

/// The operations that record one more; the oldest that is kept gives way.
pub fn record_ops(state: &State, operation: Operation) -> Result<Vec<Op>, StoreError> {
    record_all_ops(state, [operation])
}

/// The same for several.
pub fn record_all_ops(state: &State, all: impl IntoIterator<Item = Operation>) -> Result<Vec<Op>, StoreError> {
    let (mut number, mut ops) = (last_number(state)?, Vec::new());
    for mut operation in all {
        number += 1;
        operation.number = number;
        ops.push(Op::Put(operation_key(number), encode_operation(&operation)));
        ops.extend(number.checked_sub(OPERATIONS_KEPT).map(|old| Op::Delete(operation_key(old))));
    }
    ops.push(counter_op(LAST_OPERATION_KEY, number));
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
        found.push(decode_operation(value).map_err(StoreError::in_journal)?);
    }
    Ok(found)
}

/// The last one.
pub fn last(state: &State) -> Result<Option<Operation>, StoreError> {
    let last = state.last(OPERATION_PREFIX)?;
    last.map(|(_, value)| decode_operation(value).map_err(StoreError::in_journal)).transpose()
}
