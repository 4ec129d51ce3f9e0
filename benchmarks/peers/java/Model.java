import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.Map;

/** An ONNX model of one input and one output, on one thread that does not spin; used by one thread. */
final class Model implements AutoCloseable {
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;
    private final String input;
    private final long[] shape;

    /** Features that one event has. */
    final int width;

    /** The input of the next batch, for `records` events; native, so that nothing is copied. */
    final FloatBuffer features;

    Model(String path, int records) throws OrtException {
        try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(1);
            options.setInterOpNumThreads(1);
            options.addConfigEntry("session.intra_op.allow_spinning", "0");
            session = environment.createSession(path, options);
        }
        var first = session.getInputInfo().entrySet().iterator().next();
        input = first.getKey();
        shape = ((TensorInfo) first.getValue().getInfo()).getShape().clone();
        int size = 1;
        for (int axis = 1; axis < shape.length; axis++) {
            size *= (int) shape[axis];
        }
        width = size;
        features = ByteBuffer.allocateDirect(records * width * Float.BYTES)
                .order(ByteOrder.nativeOrder())
                .asFloatBuffer();
    }

    /** The outputs of the first `records` events in `features`, one row after the other; empties `features`. */
    float[] score(int records) throws OrtException {
        if (features.position() != records * width) {
            throw new IllegalArgumentException(
                    features.position() + " features of " + records + " events, expected " + width + " each");
        }
        features.flip();
        shape[0] = records;
        try (OnnxTensor fed = OnnxTensor.createTensor(environment, features, shape);
                OrtSession.Result result = session.run(Map.of(input, fed))) {
            FloatBuffer found = ((OnnxTensor) result.get(0)).getFloatBuffer();
            float[] outputs = new float[found.remaining()];
            found.get(outputs);
            return outputs;
        } finally {
            features.clear();
        }
    }

    @Override
    public void close() throws OrtException {
        session.close();
    }
}
