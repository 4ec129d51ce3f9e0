import java.util.HashMap;
import java.util.Map;

/** What benchmarks/options.py writes: pairs of --name and value. */
record Options(Map<String, String> values) {
    static final String MODEL_NAME = "mlp";
    static final String MODEL_VERSION = "1";
    static final float THRESHOLD = 0.5f;

    static Options of(String[] arguments) {
        Map<String, String> values = new HashMap<>();
        for (int place = 0; place < arguments.length; place += 2) {
            values.put(arguments[place].substring(2), arguments[place + 1]);
        }
        return new Options(values);
    }

    String get(String name) {
        String value = values.get(name);
        if (value == null) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return value;
    }

    String modelFile() {
        return get("model") + "/" + MODEL_VERSION + "/model.onnx";
    }

    /** Records after which the program ends; without the option it runs until SIGTERM. */
    long records() {
        return values.containsKey("records") ? Long.parseLong(get("records")) : Long.MAX_VALUE;
    }
}
