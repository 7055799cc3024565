//! Convolutions by themselves.

use fewbit_checkpoint::StoredWeight;
use fewbit_checkpoint::compressed_tensors::CompressedScheme;
use fewbit_model::{Convolution, Linear, ModelError, Windows};
use fewbit_numerics::rows::quantize_rows_int8;

/// Whole numbers from -7 to 7, products of which are summed exactly.
fn values(count: usize, seed: usize) -> Vec<f32> {
    let value = |index: usize| ((index * 7919 + seed * 104_729) % 1009 % 15) as f32 - 7.0;
    (0..count).map(value).collect()
}

const WINDOWS: Windows = Windows {
    kernel: [2, 3],
    stride: [2, 1],
    dilation: [1, 2],
    padding: [[1, 0], [2, 1]],
};

/// The value of an image (height, width, channels) at a place counted from the padding's first, 0 in the padding.
fn padded(image: &[f32], [height, width, channels]: [usize; 3], [y, x, c]: [usize; 3]) -> f32 {
    let y = y.checked_sub(WINDOWS.padding[0][0]);
    let x = x.checked_sub(WINDOWS.padding[1][0]);
    match (y.filter(|&y| y < height), x.filter(|&x| x < width)) {
        (Some(y), Some(x)) => image[(y * width + x) * channels + c],
        _ => 0.0,
    }
}

#[test]
fn outputs_are_sums_over_windows_for_every_number_of_groups_and_threads() {
    let (images, height, width, inside, out) = (2, 7, 9, 4, 6);
    let x = values(images * height * width * inside, 1);
    let bias = values(out, 2);
    let [rows, columns] = WINDOWS.count([height, width]);
    assert_eq!([rows, columns], [4, 8]);
    for groups in [1, 2] {
        let (group_in, group_out) = (inside / groups, out / groups);
        let weight = values(out * 2 * 3 * group_in, 3);
        let stored = StoredWeight::of_values(&weight);
        let convolution =
            Convolution::new(&stored, Some(&bias), [inside, out], groups, WINDOWS).unwrap();
        let mut expected = Vec::new();
        for image in x.chunks(height * width * inside) {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |c| (row, c))) {
                for o in 0..out {
                    let mut sum = bias[o];
                    for (ky, kx) in (0..2).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                        for c in 0..group_in {
                            let channel = o / group_out * group_in + c;
                            let place = [row * 2 + ky, column + kx * 2, channel];
                            let w = weight[((o * 2 + ky) * 3 + kx) * group_in + c];
                            sum += w * padded(image, [height, width, inside], place);
                        }
                    }
                    expected.push(sum);
                }
            }
        }
        for threads in [1, 2, 5] {
            let mut y = vec![0.0; expected.len()];
            (convolution.forward_into(&x, [images, height, width], &mut y, threads)).unwrap();
            assert_eq!(y, expected, "{groups} groups, {threads} threads");
        }
    }
}

#[test]
fn int8_convolutions_quantize_window_by_window() {
    let (height, width, inside, out) = (5, 6, 3, 4);
    let x = values(height * width * inside, 4);
    let columns = 2 * 3 * inside;
    let codes = quantize_rows_int8(&values(out * columns, 5), out, columns);
    let stored = CompressedScheme::DynamicInt8.stored_weight(codes);
    let linear = Linear::new(stored.clone(), None, [out, columns]).unwrap();
    let convolution = Convolution::new(&stored, None, [inside, out], 1, WINDOWS).unwrap();
    let [rows, across] = WINDOWS.count([height, width]);
    let mut y = vec![0.0; rows * across * out];
    (convolution.forward_into(&x, [1, height, width], &mut y, 1)).unwrap();
    for (window, y) in y.chunks(out).enumerate() {
        let (top, left) = (window / across * 2, window % across);
        let places = (0..2).flat_map(|ky| (0..3).map(move |kx| (ky, kx)));
        let row: Vec<f32> = places
            .flat_map(|(ky, kx)| (0..inside).map(move |c| [top + ky, left + 2 * kx, c]))
            .map(|place| padded(&x, [height, width, inside], place))
            .collect();
        assert_eq!(y, linear.forward(&row, 1).unwrap(), "window {window}");
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let stored = StoredWeight::of_values(&values(4 * 18, 1));
    let new = |channels, groups, windows| {
        let made = Convolution::new(&stored, None, channels, groups, windows);
        made.unwrap_err().to_string()
    };
    assert!(new([3, 4], 2, WINDOWS).contains("whole groups, found 3 and 4 channels in 2 groups"));
    let still = Windows {
        stride: [0, 1],
        ..WINDOWS
    };
    assert!(new([3, 4], 1, still).contains("strides and dilations of at least 1"));
    assert!(new([3, 5], 1, WINDOWS).contains("bytes: expected as many as shape [5, 18] has"));
    let convolution = Convolution::new(&stored, None, [3, 4], 1, WINDOWS).unwrap();
    let run = |x: &[f32], images, outputs, threads| {
        convolution.forward_into(x, images, &mut vec![0.0; outputs], threads)
    };
    let x = values(5 * 6 * 3, 2);
    assert!(matches!(
        run(&x, [1, 5, 6], 59, 1),
        Err(ModelError::Input(_))
    ));
    assert!(matches!(
        run(&x, [2, 5, 6], 60, 1),
        Err(ModelError::Input(_))
    ));
    assert!(matches!(
        run(&x, [1, 5, 6], 60, 0),
        Err(ModelError::Input(_))
    ));
    // Too small for a window: there are none.
    assert_eq!(WINDOWS.count([0, 1]), [0, 0]);
    assert!(run(&x[..3], [1, 1, 1], 0, 1).is_ok());
    let mut broken = x;
    broken[40] = f32::NAN;
    let error = run(&broken, [1, 5, 6], 60, 1).unwrap_err();
    assert!(matches!(error, ModelError::NonFinite { .. }), "{error}");
}
